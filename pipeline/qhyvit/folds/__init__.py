"""Float-exact edits that make channel-wise scales expressible in TFLite, one file each with one constant ``FOLD``."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.folds.shared.fold import Fold
from qhyvit.registry import discover


@cache
def all_folds() -> dict[str, Fold]:
    """Every fold by name."""
    return discover(sys.modules[__name__], "FOLD", Fold)
