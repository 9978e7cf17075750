"""Integer arithmetic of TFLite's reference kernels, after their formulas: 31-bit multipliers, shifts that round."""

from __future__ import annotations

import math

import numpy as np

HIGHEST = 2**31 - 1


def high_product(a: int, b: int) -> int:
    """The high half of 2ab, rounded half away from zero."""
    doubled = a * b + ((1 << 30) if a * b >= 0 else 1 - (1 << 30))
    return (abs(doubled) >> 31) * (1 if doubled >= 0 else -1)


def halved(x: int, times: int) -> int:
    """x / 2^times, rounded half away from zero."""
    mask = (1 << times) - 1
    return (x >> times) + ((x & mask) > (mask >> 1) + (x < 0))


def scaled(x: int, multiplier: int, shift: int) -> int:
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
    unique, where = np.unique(steps, return_inverse=True)
    found = [scaled(int(v), multiplier, shift) for v in unique]
    return np.array(found, np.int64)[where].reshape(steps.shape)
