"""Quantization methods, one file each with one constant ``METHOD``."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.methods.shared.method import Method
from qhyvit.registry import discover, pick


@cache
def all_methods() -> dict[str, Method]:
    """Every method by name."""
    return discover(sys.modules[__name__], "METHOD", Method)


def method(name: str) -> Method:
    """One method by name.

    Raises:
        UsageError: unknown name.
    """
    return pick(all_methods(), name, "method")
