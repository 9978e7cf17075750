"""exp and 1 / x of TFLite's reference SOFTMAX, in integers after its formulas.

Qn.m: a signed 32-bit integer with n integer and m fraction bits. Arrays are int64 [*] throughout.
"""

from __future__ import annotations

import math

import numpy as np

from qhyvit.ops.shared.fixed_point import HIGHEST, halved, high_product

QUARTER = 1 << 24  # 1/4 in Q5.26
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


def exponential(x: np.ndarray) -> np.ndarray:
    """exp(x) for x <= 0, Q5.26 to Q0.31: that of what is left of a quarter, times those of powers of two."""
    within = (x & (QUARTER - 1)) - QUARTER
    found, quarters = _near_zero(_shifted(within, 5)), within - x
    for power in range(-2, 5):
        has = (quarters >> (26 + power)) & 1
        found = np.where(has == 1, high_product(found, _constant(math.exp(-(2.0**power)))), found)
    return np.where(x == 0, HIGHEST, found)


def reciprocal(x: np.ndarray, integer_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """1 / x for x >= 1/2, by three steps of Newton's method.

    Returns:
        Q0.31 of the inverse of x / 2^bits, which is from 1 to 2; those bits.
    """
    headroom = 32 - np.frexp(x.astype(np.float64))[1]
    fraction = (x << headroom) - (1 << 31)
    half = (fraction + HIGHEST + 1) >> 1
    found = _constant(48 / 17, 29) - high_product(half, _constant(32 / 17, 29))  # Q2.29
    for _ in range(3):
        left = (1 << 29) - high_product(half, found)
        found = found + _shifted(high_product(found, left), 2)
    return _shifted(found, 1), integer_bits - headroom
