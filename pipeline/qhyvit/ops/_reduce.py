"""Axes and shapes shared by MEAN, SUM and REDUCE_MAX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops._spec import Forward, Shape


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


def sum_codes(*, mean: bool) -> Callable[[Any, tuple[float, int], tuple[float, int], int], Any]:
    """``OpSpec.sum_codes`` of XNNPACK's reductions: the sum of codes times one factor, plus one offset, in float32."""

    def codes(y: np.ndarray, read: tuple[float, int], written: tuple[float, int], count: int) -> np.ndarray:
        (s_in, z_in), (s_out, z_out) = read, written
        parts, ratio = count if mean else 1, np.float32(s_in) / np.float32(s_out)
        sums = (np.rint(y / s_in * parts) + count * z_in).astype(np.float32)
        offset = np.float32(z_out) - np.float32(z_in * (1 if mean else count)) * ratio
        found: np.ndarray = np.rint(sums * (ratio / np.float32(parts)) + offset)
        return found

    return codes


def reduced_shape(shapes: Sequence[Shape], attrs: ReducerAttrs, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a reduction."""
    axes = axes_of(constants[1], len(shapes[0]))
    if attrs.keep_dims:
        return tuple(1 if i in axes else s for i, s in enumerate(shapes[0]))
    return tuple(s for i, s in enumerate(shapes[0]) if i not in axes)
