"""Range estimators, one file each with one constant ``OBSERVER``."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.observers.shared.observer import Observer
from qhyvit.registry import discover, pick


@cache
def all_observers() -> dict[str, Observer]:
    """Every observer by name."""
    return discover(sys.modules[__name__], "OBSERVER", Observer)


def observer(name: str) -> Observer:
    """One observer by name.

    Raises:
        UsageError: unknown name.
    """
    return pick(all_observers(), name, "observer")
