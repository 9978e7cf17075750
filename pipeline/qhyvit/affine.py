"""Affine quantization: value = scale * (code - zero_point). float64 inside, float32 scales outside.

Source: LiteRT 8-bit quantization specification; zero-point overflow: Q-HyViT, section on bridge blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A smaller scale makes bias / (s_in * s_w) overflow int32 on dead channels, and the bias is lost without a word.
SCALE_FLOOR = 1e-7
INT16_TOP = 2**15 - 1
INT16_FLOOR = 1e-20  # of a scale: a tensor may be zero throughout
STEPS_OF_INT8 = 128  # int16 steps in one of int8, where codes go over


def int16_scale(largest: float) -> float:
    """The scale of an int16 tensor with zero point 0 that holds absolute values up to ``largest``."""
    return float(np.float32(max(largest / INT16_TOP, INT16_FLOOR)))


@dataclass(frozen=True)
class Grid:
    """The integer codes that may be used: [qmin, qmax]; ``bits`` < 8 is a smaller grid in an int8 tensor."""

    qmin: int
    qmax: int

    @property
    def levels(self) -> int:
        """Number of steps between the lowest and the highest code."""
        return self.qmax - self.qmin


def grid(bits: int = 8, *, narrow: bool = False, centred: bool = True) -> Grid:
    """Signed grid of ``bits``; ``narrow`` drops the lowest code (weights: [-127, 127]).

    Fewer than 8 bits in an int8 tensor: ``centred`` around 0 for zero point 0, else from -128 up, where int8 itself
    clamps the lower end.
    """
    half = 1 << (bits - 1)
    if narrow or centred or bits > 8:
        return Grid(-half + (1 if narrow else 0), half - 1)
    return Grid(-128, 2 * half - 129)


@dataclass(frozen=True)
class AffineParams:
    """Result of fitting a grid to ranges. ``scale``, ``zero_point`` have the shape of ``lo``.

    ``overflow`` is what the range's own zero point would have been outside the grid, in codes (0 = inside):
    the overflow of the Q-HyViT paper. It is cured by extending the range to hold zero; ``resolution_loss`` is
    how much coarser the grid became by that (1 = not at all).
    """

    scale: Array
    zero_point: NDArray[np.int64]
    overflow: NDArray[np.int64]
    resolution_loss: Array


def fit(lo: object, hi: object, g: Grid, *, symmetric: bool) -> AffineParams:
    """Scale and zero point for the range [lo, hi] (any shape). Zero is always exactly representable.

    Raises:
        ValueError: a range is not finite or hi < lo.
    """
    low, high = np.asarray(lo, np.float64), np.asarray(hi, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()) or (high < low).any():
        raise ValueError(f"range must be finite and ordered, got [{low}, {high}]")
    own = np.maximum(high - low, SCALE_FLOOR * g.levels)
    own_zero_point = np.rint(g.qmin - low / (own / g.levels))
    overflow = own_zero_point - np.clip(own_zero_point, g.qmin, g.qmax)
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if symmetric:
        half = min(g.qmax, -g.qmin)
        scale = np.maximum(np.maximum(-low, high) / half, SCALE_FLOOR)
        zero_point = np.zeros_like(scale)
    else:
        scale = np.maximum((high - low) / g.levels, SCALE_FLOOR)
        zero_point = np.clip(np.rint(g.qmin - low / scale), g.qmin, g.qmax)
    scale = scale.astype(np.float32).astype(np.float64)  # what the file can hold
    loss = scale * g.levels / own
    return AffineParams(scale, zero_point.astype(np.int64), overflow.astype(np.int64), loss)


def _along(values: object, x: NDArray[np.generic], axis: int | None) -> Array:
    """Reshape per-channel ``values`` so that they broadcast over ``x`` along ``axis``."""
    v = np.asarray(values, np.float64)
    if axis is None or v.ndim == 0:
        return v
    shape = [1] * x.ndim
    shape[axis] = -1
    return v.reshape(shape)


def quantize(x: object, scale: object, zero_point: object, g: Grid, axis: int | None = None) -> NDArray[np.int64]:
    """Codes of ``x``: round half to even, then clamp to the grid. ``scale`` is a scalar or per channel of ``axis``."""
    v = np.asarray(x, np.float64)
    codes = np.rint(v / _along(scale, v, axis) + _along(zero_point, v, axis))
    return np.clip(codes, g.qmin, g.qmax).astype(np.int64)


def dequantize(codes: object, scale: object, zero_point: object, axis: int | None = None) -> Array:
    """Values of ``codes``, float64."""
    q = np.asarray(codes, np.float64)
    return (q - _along(zero_point, q, axis)) * _along(scale, q, axis)
