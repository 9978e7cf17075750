"""One file per TFLite op, each with one constant ``OP``; found by listing the folder."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.errors import GraphError
from qhyvit.ops.shared.spec import Copies, OpSpec
from qhyvit.registry import discover


@cache
def all_ops() -> dict[str, OpSpec]:
    """Every supported op by its TFLite builtin name."""
    return discover(sys.modules[__name__], "OP", OpSpec)


def spec(name: str) -> OpSpec:
    """The OpSpec of one op.

    Raises:
        GraphError: the op is not supported.
    """
    table = all_ops()
    if name not in table:
        raise GraphError(f"op {name} is not supported; supported: {', '.join(sorted(table))}")
    return table[name]


def copying(*kinds: Copies) -> frozenset[str]:
    """Names of the ops that only copy values, of these kinds; none given: of all."""
    return frozenset(name for name, op in all_ops().items() if op.copies in (kinds or tuple(Copies)))
