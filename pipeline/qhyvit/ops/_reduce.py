"""Axes and shapes shared by MEAN, SUM and REDUCE_MAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops._integer import saturated, scale
from qhyvit.ops._spec import Codes, Forward, Integer, Kernel, Quants, Shape


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
    """XNNPACK's int8 reductions: the sum of codes times one factor, plus one offset, in float32.

    The builtin int16 kernel multiplies the sum of steps by a float32 factor and rounds half away from zero.
    """

    def integer(codes: Sequence[Codes], quants: Quants, attrs: ReducerAttrs, kernel: Kernel) -> list[np.ndarray]:
        (read, _), (write,), x = quants.reads, quants.writes, codes[0]
        assert read is not None
        assert x is not None
        axes = tuple(a + 1 for a in axes_of(codes[1], x.ndim - 1))
        total = x.sum(axis=axes, keepdims=attrs.keep_dims)
        count, parts = x.size // max(total.size, 1), np.float32(1)
        if mean:
            parts = np.float32(count)
        ratio = scale(read) / scale(write)
        if write.bits == 16:
            steps = ((total - count * read.zero_point).astype(np.float32) * (ratio / parts)).astype(np.float64)
            return [saturated(np.trunc(steps + np.copysign(0.5, steps)), write)]
        shift = np.float32(write.zero_point) - np.float32(read.zero_point * (1 if mean else count)) * ratio
        return [saturated(np.rint(total.astype(np.float32) * (ratio / parts) + shift), write)]

    return integer


def reduced_shape(shapes: Sequence[Shape], attrs: ReducerAttrs, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a reduction."""
    axes = axes_of(constants[1], len(shapes[0]))
    if attrs.keep_dims:
        return tuple(1 if i in axes else s for i, s in enumerate(shapes[0]))
    return tuple(s for i, s in enumerate(shapes[0]) if i not in axes)
