"""Axes and shapes shared by MEAN, SUM and REDUCE_MAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.errors import GraphError
from qhyvit.ops.shared.fixed_point import multiplier_of, requantized, scaled
from qhyvit.ops.shared.integer import half_away, ratio, saturated
from qhyvit.ops.shared.spec import Codes, Forward, Integer, Kernel, Quants, Shape


@dataclass(frozen=True)
class ReducerAttrs:
    """Attributes of ReducerOptions."""

    keep_dims: bool = False


def axes_of(axis_input: Any, rank: int) -> tuple[int, ...]:
    """Axes in the file's shape, sorted, none negative (files hold them unsorted)."""
    return tuple(sorted({int(a) % rank for a in np.atleast_1d(axis_input)}))


def reduction(function: Callable[..., torch.Tensor]) -> Forward:
    """Forward of a reduction; ``function`` takes (x, dim=, keepdim=)."""

    def forward(inputs: Sequence[Any], attrs: ReducerAttrs) -> torch.Tensor:
        x = inputs[0]
        axes = tuple(a + 1 for a in axes_of(inputs[1], x.dim() - 1))  # behind the images' dimension
        # torch takes "no axes" for "all axes"
        return function(x, dim=axes, keepdim=attrs.keep_dims) if axes else x

    return forward


def sums_up(*, mean: bool) -> Integer:
    """XNNPACK's int8 reductions: the sum of codes times one factor, plus one offset, in float32 (arm64: fused).

    The factor of a mean is that of a sum times 1 / count, which is a float32 itself; the offset is made of the factor.

    The builtin int16 SUM multiplies the sum of steps by a float32 factor and rounds half away from zero. The builtin
    int16 MEAN and the reference MEAN have a 31-bit multiplier, divided by the number of operands. The reference SUM
    takes the bytes that it reads and writes for unsigned, a fault: where a code is below 0, its results mean nothing.
    """

    def integer(codes: Sequence[Codes], quants: Quants, attrs: ReducerAttrs, kernel: Kernel) -> list[np.ndarray]:
        (read, _), (write,), x = quants.reads, quants.writes, codes[0]
        assert read is not None
        assert x is not None
        faulty = kernel is Kernel.REFERENCE and not mean
        if faulty and write.bits == 16:
            raise GraphError("SUM: the reference kernel leaves half of an int16 result unwritten; run it with XNNPACK")
        axes = tuple(a + 1 for a in axes_of(codes[1], x.ndim - 1))
        total = (x & 255 if faulty else x).sum(axis=axes, keepdims=attrs.keep_dims)
        count = x.size // max(total.size, 1)
        steps, factor = total - count * read.zero_point, read.scale[0] / write.scale[0]
        if faulty:
            unsigned = np.clip(requantized(steps, factor) + write.zero_point, 0, 255)
            return [unsigned.astype(np.uint8).view(np.int8).astype(np.int64)]
        if kernel is Kernel.TFLM or (mean and (kernel.is_reference or write.bits == 16)):
            return [saturated(scaled(steps, *_shared(factor, count)) + write.zero_point, write)]
        step = ratio(read, write)
        if write.bits == 16:
            return [saturated(half_away((steps.astype(np.float32) * step).astype(np.float64)), write)]
        sums, share = total.astype(np.float32), step * (np.float32(1) / np.float32(count)) if mean else step
        zeros, offset = np.float32(-count * read.zero_point), np.float32(write.zero_point)
        if kernel is Kernel.ARM64:
            return [saturated(np.rint(_fused(sums, share, _fused(zeros, share, offset))), write)]
        return [saturated(np.rint(sums * share + (zeros * share + offset)), write)]

    return integer


def _fused(a: Any, b: np.float32, c: np.float32) -> Any:
    """a * b + c in float32, rounded once: arm64's compilers make one instruction of it."""
    return (a.astype(np.float64) * float(b) + float(c)).astype(np.float32)


def _shared(factor: float, count: int) -> tuple[int, int]:
    """A multiplier and its shift, divided by ``count``, cut off."""
    multiplier, shift = multiplier_of(factor)
    finer = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << finer) // count, shift - finer


def reduced_shape(shapes: Sequence[Shape], attrs: ReducerAttrs, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a reduction."""
    axes = axes_of(constants[1], len(shapes[0]))
    if attrs.keep_dims:
        return tuple(1 if i in axes else s for i, s in enumerate(shapes[0]))
    return tuple(s for i, s in enumerate(shapes[0]) if i not in axes)
