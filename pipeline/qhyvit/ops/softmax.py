"""SOFTMAX over the last axis; its int8 output has a prescribed grid, and so has its int16 output.

The kernel works in float32: a table of exponentials, their sum from first to last, one reciprocal. ``_integer`` repeats
it, or near ties a code in a million would differ, and every value behind it. On arm64 the table of the kernel
that writes int8 has 16-bit integers, and a fixed-point multiplier stands for the reciprocal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops._fixed_point import requantized
from qhyvit.ops._integer import saturated, scale
from qhyvit.ops._spec import Codes, Fixed, Kernel, OpSpec, Quantization, Quants
from qhyvit.ops._unary import same_shape

ARM64_ONE = 65535  # 1 in arm64's table


@dataclass(frozen=True)
class SoftmaxAttrs:
    """Attributes of SoftmaxOptions."""

    beta: float = 1.0


def _forward(inputs: Sequence[Any], attrs: SoftmaxAttrs) -> torch.Tensor:
    return torch.softmax(inputs[0] * attrs.beta, dim=-1)


def _exponentials(x: np.ndarray, read: Quantization, attrs: SoftmaxAttrs) -> np.ndarray:
    """float32 exp of every operand below its row's highest."""
    below = (x - x.max(axis=-1, keepdims=True)).astype(np.float32)
    found: np.ndarray = np.exp((below * (scale(read) * np.float32(attrs.beta))).astype(np.float64)).astype(np.float32)
    return found


def _arm64_steps(exponentials: np.ndarray, write: Quantization) -> np.ndarray:
    """Steps of the kernel that arm64 has for int8 output."""
    whole = np.float32(ARM64_ONE)
    table = np.minimum(np.floor(exponentials * whole + np.float32(0.5)), whole).astype(np.int64)
    inverse = np.float32(1.0) / (table.sum(axis=-1).astype(np.float32) * scale(write))
    return requantized(table, inverse[..., None])


def _integer(codes: Sequence[Codes], quants: Quants, attrs: SoftmaxAttrs, kernel: Kernel) -> list[np.ndarray]:
    """A sum from first to last, one reciprocal, and products that are rounded half up."""
    (read,), (write,), x = quants.reads, quants.writes, codes[0]
    assert read is not None
    assert x is not None
    table = _exponentials(x, read, attrs)
    if kernel is Kernel.ARM64 and write.bits == 8:
        return [saturated(_arm64_steps(table, write) + write.zero_point, write)]
    total = np.add.accumulate(table, axis=-1, dtype=np.float32)[..., -1:]
    inverse = np.float32(1.0) / (total * scale(write))
    return [saturated(np.floor((table * inverse).astype(np.float64) + 0.5) + write.zero_point, write)]


OP = OpSpec(
    name="SOFTMAX",
    options="SoftmaxOptions",
    attrs=SoftmaxAttrs,
    infer_shape=same_shape,
    forward=_forward,
    out=Fixed(1 / 256, -128),
    wide=Fixed(1 / 65536, -32768),
    delegate="XNNPACK has no int8 SOFTMAX",
    integer=_integer,
)
