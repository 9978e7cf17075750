"""Axes and shapes shared by MEAN, SUM and the other reductions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ReducerAttrs:
    """Attributes of ReducerOptions."""

    keep_dims: bool = False


def axes_of(axis_input: Any, rank: int) -> tuple[int, ...]:
    """Axes in the file's shape, sorted, none negative (files hold them unsorted)."""
    return tuple(sorted({int(a) % rank for a in np.atleast_1d(axis_input)}))


def batched_axes(axis_input: Any, batched_rank: int) -> tuple[int, ...]:
    """The same for a tensor with the images' dimension before its shape."""
    return tuple(a + 1 for a in axes_of(axis_input, batched_rank - 1))


def reduced_shape(shapes: Sequence[Shape], attrs: ReducerAttrs, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a reduction."""
    axes = axes_of(constants[1], len(shapes[0]))
    if attrs.keep_dims:
        return tuple(1 if i in axes else s for i, s in enumerate(shapes[0]))
    return tuple(s for i, s in enumerate(shapes[0]) if i not in axes)
