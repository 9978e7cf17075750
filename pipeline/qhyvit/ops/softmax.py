"""SOFTMAX over the last axis; its int8 output has a prescribed grid, and so has its int16 output.

The kernel works in float32: a table of exponentials, their sum from first to last, one reciprocal. ``_integer`` repeats
it, or near ties a code in a million would differ, and every value behind it. On arm64 the table of the kernel
that writes int8 has 16-bit integers, and a fixed-point multiplier stands for the reciprocal. The reference kernel is
all integers; writing int8, it ends the process where the exponentials of a row, of 1 for its highest operand, add up to
512 or more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.fixed_point import halved, high_product, multiplier_of, requantized
from qhyvit.ops.shared.fixed_point_exp import exponential, reciprocal
from qhyvit.ops.shared.integer import saturated, scale
from qhyvit.ops.shared.spec import Codes, Fixed, Kernel, Nonnegative, OpSpec, Quants
from qhyvit.ops.shared.unary import same_shape

ARM64_ONE = 65535  # 1 in arm64's table


@dataclass(frozen=True)
class SoftmaxAttrs:
    """Attributes of SoftmaxOptions."""

    beta: float = 1.0


def _forward(inputs: Sequence[Any], attrs: SoftmaxAttrs) -> torch.Tensor:
    x = inputs[0] * attrs.beta  # torch.softmax adds up in an order of each processor's own
    exponentials = torch.exp(x - x.detach().amax(dim=-1, keepdim=True))
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


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


def _reference_steps(x: np.ndarray, read: Quantization, attrs: SoftmaxAttrs, bits: int) -> np.ndarray:
    """Steps of the reference kernel: exponentials in Q0.31, their sum in Q12.19, one reciprocal."""
    multiplier, shift = multiplier_of(min(attrs.beta * read.scale[0] * 2**26, 2.0**31 - 1))
    below = x.max(axis=-1, keepdims=True) - x
    reach = math.floor(31 * 2**26 / 2**shift)  # what lies further below is 0
    table = exponential(high_product(-np.arange(1 << read.bits) << shift, multiplier))
    table[reach + 1 :] = 0
    found = table[below]
    inverse, over = reciprocal(halved(found, 12).sum(axis=-1, keepdims=True), 12)
    return halved(high_product(found, inverse), over + 31 - bits)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: SoftmaxAttrs, kernel: Kernel) -> list[np.ndarray]:
    """A sum from first to last, one reciprocal, and products that are rounded half up."""
    (read,), (write,), x = quants.reads, quants.writes, codes[0]
    assert read is not None
    assert x is not None
    if kernel.is_reference:
        return [saturated(_reference_steps(x, read, attrs, write.bits) + write.zero_point, write)]
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
    nonnegative=Nonnegative.ALWAYS,
    xnnpack=("Softmax",),
)
