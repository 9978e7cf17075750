"""Integer arithmetic of TFLite's kernels, after their formulas: fixed-point multipliers, shifts that round.

``Whole`` is one integer, or an array [*] of int64; multipliers, shifts and factors may be arrays that broadcast over
it.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

HIGHEST = 2**31 - 1
Whole = TypeVar("Whole", int, np.ndarray)


def high_product(a: Whole, b: Any) -> Whole:
    """The high half of 2ab, to the nearest, half a step up."""
    doubled: Any = a * b
    found: Whole = ((abs(doubled) + (1 << 30) - (doubled < 0)) >> 31) * (1 - 2 * (doubled < 0))
    return found


def halved(x: Whole, times: Any) -> Whole:
    """x / 2^times, rounded half away from zero."""
    mask = (1 << times) - 1
    found: Whole = (x >> times) + ((x & mask) > (mask >> 1) + (x < 0))
    return found


def rounded_up(x: Whole, times: Any) -> Whole:
    """x / 2^times, rounded half up."""
    found: Whole = (x + ((1 << times) >> 1)) >> times
    return found


def scaled(x: Whole, multiplier: Any, shift: Any) -> Whole:
    """x * multiplier / 2^31 * 2^shift; rounds twice where ``shift`` is negative."""
    whole: Whole = x * (1 << np.maximum(shift, 0))
    return halved(high_product(whole, multiplier), np.maximum(-shift, 0))


def widened(raw: int, bits: int) -> int:
    """The same value with ``bits`` fewer integer bits, saturating."""
    return max(min(raw << bits, HIGHEST), -HIGHEST - 1)


def multipliers_of(factors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Real factors [*] as 31-bit multipliers and shifts, int64."""
    fractions, shifts = np.frexp(np.asarray(factors, np.float64))
    fixed = np.floor(fractions * 2**31 + 0.5).astype(np.int64)
    full = fixed == 2**31
    return np.where(full, fixed // 2, fixed), (shifts + full).astype(np.int64)


def multiplier_of(factor: float) -> tuple[int, int]:
    """A real factor as a 31-bit multiplier and a shift."""
    multiplier, shift = multipliers_of(factor)
    return int(multiplier), int(shift)


def half_multiplier_of(factor: float) -> tuple[int, int]:
    """A real factor as a 15-bit multiplier and a shift."""
    multiplier, shift = multiplier_of(factor)
    return min((multiplier + (1 << 15)) >> 16, 2**15 - 1), shift


def requantized(steps: np.ndarray, factor: Any) -> np.ndarray:
    """Integer steps (int64) times real factors, by 31-bit multipliers; rounded twice."""
    return scaled(steps, *multipliers_of(factor))


def requantized_once(steps: np.ndarray, factor: Any) -> np.ndarray:
    """The same, rounded once, half away from zero."""
    multiplier, shift = multipliers_of(factor)
    found: np.ndarray = np.sign(steps) * ((np.abs(steps) * multiplier + (1 << (30 - shift))) >> (31 - shift))
    return found


def requantized_once_up(steps: np.ndarray, factor: Any) -> np.ndarray:
    """The same, rounded once, half up."""
    multiplier, shift = multipliers_of(factor)
    return rounded_up(steps * multiplier, 31 - shift)


def requantized_up(steps: np.ndarray, factor: Any) -> np.ndarray:
    """The same, rounded twice, the second time half up."""
    multiplier, shift = multipliers_of(factor)
    return rounded_up(high_product(steps * (1 << np.maximum(shift, 0)), multiplier), np.maximum(-shift, 0))


def product_steps(total: np.ndarray, factor: float) -> np.ndarray:
    """Steps that the int16 kernels with 64-bit sums make of ``total`` (int64), times ``factor``, rounded half up."""
    multiplier, shift = half_multiplier_of(factor)
    steps: np.ndarray = (total * multiplier + (1 << (14 - shift))) >> (15 - shift)
    return steps


def by_fraction_bits(steps: np.ndarray, ratio: np.float32, bits: int) -> np.ndarray:
    """Integer steps (int64) times ``ratio`` with so many fraction bits, rounded half up: XNNPACK's conversions."""
    multiplier = int(np.rint(np.float32(1 << bits) * ratio))
    return rounded_up(steps * multiplier, bits)


def of_float32(steps: np.ndarray, factor: np.float32) -> np.ndarray:
    """Integer steps (int64) times a float32 factor below 2^8, as arm64's vector instructions do it.

    The factor's 24 bits make a 31-bit multiplier; the high half of the product is cut off, then rounded half up.
    """
    fraction, exponent = math.frexp(float(factor))
    shift = max(-exponent, 1)
    high = ((steps << (shift + exponent)) * int(fraction * 2**31)) >> 31
    return rounded_up(high, shift)
