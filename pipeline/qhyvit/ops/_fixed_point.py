"""Integer arithmetic of TFLite's reference kernels, after their formulas: 31-bit multipliers, shifts that round.

``Whole`` is one integer, or an array [*] of int64 whose elements are computed alike.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

HIGHEST = 2**31 - 1
Whole = TypeVar("Whole", int, np.ndarray)


def high_product(a: Whole, b: int) -> Whole:
    """The high half of 2ab, to the nearest, half a step up."""
    doubled: Any = a * b
    return ((abs(doubled) + (1 << 30) - (doubled < 0)) >> 31) * (1 - 2 * (doubled < 0))


def halved(x: Whole, times: int) -> Whole:
    """x / 2^times, rounded half away from zero."""
    mask = (1 << times) - 1
    return (x >> times) + ((x & mask) > (mask >> 1) + (x < 0))


def scaled(x: Whole, multiplier: int, shift: int) -> Whole:
    """x * multiplier / 2^31 * 2^shift; rounds twice where ``shift`` is negative."""
    return halved(high_product(x * (1 << max(shift, 0)), multiplier), max(-shift, 0))


def widened(raw: int, bits: int) -> int:
    """The same value with ``bits`` fewer integer bits, saturating."""
    return max(min(raw << bits, HIGHEST), -HIGHEST - 1)


def multiplier_of(factor: float) -> tuple[int, int]:
    """A real factor as a 31-bit multiplier and a shift."""
    fraction, shift = math.frexp(factor)
    fixed = math.floor(fraction * 2**31 + 0.5)
    return (fixed // 2, shift + 1) if fixed == 2**31 else (fixed, shift)


def half_multiplier_of(factor: float) -> tuple[int, int]:
    """A real factor as a 15-bit multiplier and a shift."""
    multiplier, shift = multiplier_of(factor)
    return min((multiplier + (1 << 15)) >> 16, 2**15 - 1), shift


def requantized(steps: np.ndarray, factor: float) -> np.ndarray:
    """QUANTIZE of integer steps (int64) to another scale, ``factor`` = old / new scale: the builtin kernel's steps."""
    multiplier, shift = multiplier_of(factor)
    return scaled(steps, multiplier, shift)


def product_steps(total: np.ndarray, factor: float) -> np.ndarray:
    """Steps that the int16 kernels with 64-bit sums make of ``total`` (int64), times ``factor``, rounded half up."""
    multiplier, shift = half_multiplier_of(factor)
    steps: np.ndarray = (total * multiplier + (1 << (14 - shift))) >> (15 - shift)
    return steps
