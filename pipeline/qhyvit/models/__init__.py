"""Model families, one file each with one constant ``FAMILY``."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.errors import UsageError
from qhyvit.models.shared.family import Family, Variant
from qhyvit.registry import discover


@cache
def all_families() -> dict[str, Family]:
    """Every family by name."""
    return discover(sys.modules[__name__], "FAMILY", Family)


def find_variant(name: str) -> tuple[Family, Variant]:
    """The family and variant of a model name.

    Raises:
        UsageError: unknown name.
    """
    for family in all_families().values():
        if name in family.variants:
            return family, family.variants[name]
    known = [variant for family in all_families().values() for variant in family.variants]
    raise UsageError(f"unknown model {name!r}; known: {', '.join(known)}")
