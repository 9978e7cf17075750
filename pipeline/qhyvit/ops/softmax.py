"""SOFTMAX over the last axis; its int8 output has a prescribed grid, and so has its int16 output.

The kernel works in float32: a table of exponentials, their sum from first to last, one reciprocal. ``kernel_steps``
repeats it, or near ties a code in a million would differ, and every value behind it. On arm64 the table of the kernel
that writes int8 has 16-bit integers, and a fixed-point multiplier stands for the reciprocal: ``arm64_steps``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops._fixed_point import requantized
from qhyvit.ops._spec import Fixed, OpSpec
from qhyvit.ops._unary import same_shape

ARM64_ONE = 65535  # 1 in arm64's table


@dataclass(frozen=True)
class SoftmaxAttrs:
    """Attributes of SoftmaxOptions."""

    beta: float = 1.0


def _forward(inputs: Sequence[Any], attrs: SoftmaxAttrs) -> torch.Tensor:
    return torch.softmax(inputs[0] * attrs.beta, dim=-1)


def _exponentials(y: np.ndarray, in_scale: float) -> np.ndarray:
    """float32 exp of every operand below its row's highest."""
    scale = np.float32(in_scale)
    with np.errstate(divide="ignore"):
        below = np.log(y / y.max(axis=-1, keepdims=True)) / float(scale)
    below = np.rint(np.maximum(below, -255.0)).astype(np.float32)
    found: np.ndarray = np.exp((below * scale).astype(np.float64)).astype(np.float32)
    return found


def arm64_steps(y: np.ndarray, in_scale: float, out_scale: float) -> np.ndarray:
    """The same as ``kernel_steps`` for the kernel that arm64 has for int8 output."""
    whole = np.float32(ARM64_ONE)
    table = np.minimum(np.floor(_exponentials(y, in_scale) * whole + np.float32(0.5)), whole).astype(np.int64)
    total = table.sum(axis=-1).astype(np.float32)
    inverse = np.float32(1.0) / (total * np.float32(out_scale))
    found = np.empty(table.shape, np.float64)
    for row in np.ndindex(total.shape):
        found[row] = requantized(table[row], float(inverse[row]))
    return found


def kernel_steps(y: np.ndarray, in_scale: float, out_scale: float) -> np.ndarray:
    """Steps of the output's scale that the kernel gives where the real result is ``y`` [..., N], float64.

    The codes below the row's highest follow from ``y`` itself: ln(y / max) / in_scale.
    """
    table = _exponentials(y, in_scale)
    total = np.add.accumulate(table, axis=-1, dtype=np.float32)[..., -1:]
    inverse = np.float32(1.0) / (total * np.float32(out_scale))
    return np.floor((table * inverse).astype(np.float64) + 0.5)


OP = OpSpec(
    name="SOFTMAX",
    options="SoftmaxOptions",
    attrs=SoftmaxAttrs,
    infer_shape=same_shape,
    forward=_forward,
    out=Fixed(1 / 256, -128),
    wide=Fixed(1 / 65536, -32768),
    delegate="XNNPACK has no int8 SOFTMAX",
    kernel_steps=kernel_steps,
    arm64_steps=arm64_steps,
)
