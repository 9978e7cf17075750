"""exp, 1 / x, sigmoid and tanh of TFLite's reference kernels, in integers after their formulas.

Qn.m: a signed 32-bit integer with n integer and m fraction bits. Arrays are int64 [*] throughout.
"""

from __future__ import annotations

import math

import numpy as np

from qhyvit.ops.shared.fixed_point import HIGHEST, halved, high_product

EIGHTH = 1 << 28  # 1/8 in Q0.31


def _shifted(x: np.ndarray, bits: int) -> np.ndarray:
    """x * 2^bits, saturating in 32 bits."""
    found: np.ndarray = np.clip(x << bits, -HIGHEST - 1, HIGHEST)
    return found


def _constant(value: float, fraction_bits: int = 31) -> int:
    return round(math.ldexp(value, fraction_bits))


def _near_zero(x: np.ndarray) -> np.ndarray:
    """exp(x) for -1/4 <= x < 0, Q0.31 to Q0.31: four terms of the series around -1/8."""
    y = x + EIGHTH
    square = high_product(y, y)
    cube, fourth = high_product(square, y), high_product(square, square)
    rest = halved(high_product(halved(fourth, 2) + cube, _constant(1 / 3)) + square, 1)
    middle = _constant(math.exp(-1 / 8))
    found: np.ndarray = middle + high_product(y + rest, middle)
    return found


def exponential(x: np.ndarray, integer_bits: int = 5) -> np.ndarray:
    """exp(x) for x <= 0, Q5.26 (or so many integer bits) to Q0.31: of what is left of a quarter, and powers of two."""
    fraction_bits = 31 - integer_bits
    quarter = 1 << (fraction_bits - 2)
    within = (x & (quarter - 1)) - quarter
    found, quarters = _near_zero(_shifted(within, integer_bits)), within - x
    for power in range(-2, integer_bits):
        has = (quarters >> (fraction_bits + power)) & 1
        found = np.where(has == 1, high_product(found, _constant(math.exp(-(2.0**power)))), found)
    return np.where(x == 0, HIGHEST, found)


def _twice_inverse(fraction: np.ndarray) -> np.ndarray:
    """2 / (1 + x) for 0 <= x < 1, Q0.31 to Q2.29, by three steps of Newton's method."""
    half = (fraction + HIGHEST + 1) >> 1
    found = _constant(48 / 17, 29) - high_product(half, _constant(32 / 17, 29))
    for _ in range(3):
        left = (1 << 29) - high_product(half, found)
        found = found + _shifted(high_product(found, left), 2)
    return found


def reciprocal(x: np.ndarray, integer_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """1 / x for x >= 1/2.

    Returns:
        Q0.31 of the inverse of x / 2^bits, which is from 1 to 2; those bits.
    """
    headroom = 32 - np.frexp(x.astype(np.float64))[1]
    return _shifted(_twice_inverse((x << headroom) - (1 << 31)), 1), integer_bits - headroom


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), Q4.27 to Q0.31."""
    above = _shifted(_twice_inverse(exponential(-abs(x), 4)), 1)
    return np.where(x == 0, 1 << 30, np.where(x > 0, above, HIGHEST - above))


def hyperbolic_tangent(x: np.ndarray) -> np.ndarray:
    """tanh(x), Q4.27 to Q0.31, as (1 - e) / (1 + e) of e = exp(-2 |x|)."""
    found = _shifted(_twice_inverse(exponential(-abs(x), 5)) - (1 << 29), 2)
    return np.where(x == 0, 0, np.where(x > 0, found, -found))
