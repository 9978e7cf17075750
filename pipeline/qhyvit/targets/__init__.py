"""Runtimes and boards, one file each with one constant ``TARGET``."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

from qhyvit.errors import UsageError
from qhyvit.registry import discover, pick
from qhyvit.targets.shared.target import CPU, INTEGER, Target

__all__ = ["CPU", "INTEGER", "Target", "all_targets", "may_float", "target"]

DEFAULT = "litert"


@cache
def all_targets() -> dict[str, Target]:
    """Every target by name."""
    return discover(sys.modules[__name__], "TARGET", Target)


def target(name: str = DEFAULT, *, integer: bool = True) -> Target:
    """One target by its name, that of one of its accelerators, or LiteRT on a board whose times a JSON file has.

    Args:
        integer: no float at all; False: float where that is faster, and the target can.

    Raises:
        UsageError: no such target, or one that computes no float.
    """
    found = _named(name)
    if not integer and not found.floats:
        raise UsageError(f"target {found.name} computes no float: leave --no-integer out")
    return replace(found, floats=False) if integer else found


def may_float(name: str) -> bool:
    """Whether a target computes in float where that is wanted.

    Raises:
        UsageError: no such target.
    """
    return _named(name).floats


def _named(name: str) -> Target:
    if name.endswith(".json"):
        return replace(all_targets()[DEFAULT], processor=name)
    for each in all_targets().values():
        if name == each.name and each.accelerators:
            return replace(each, accelerator=each.accelerators[0])
        if name in each.accelerators:
            return replace(each, accelerator=name)
    return pick(all_targets(), name, "target")
