"""RESIZE_NEAREST_NEIGHBOR of [N, H, W, C] to a constant [height, width]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.resize import ResizeAttrs, pixels, resized_shape, step
from qhyvit.ops.shared.spec import Copies, OpSpec, Tied


def _source(size: int, new_size: int, attrs: ResizeAttrs, like: torch.Tensor) -> torch.Tensor:
    """[new_size]: the old pixel that each new one copies; ties in float32, as the kernel breaks them."""
    offset = np.float32(0.5 if attrs.half_pixel_centers else 0.0)
    position = (pixels(new_size).astype(np.float32) + offset) * np.float32(step(size, new_size, attrs))
    nearest = np.floor(position + np.float32(0.5 if attrs.align_corners else 0.0))
    return torch.as_tensor(nearest.clip(0, size - 1).astype(np.int64), device=like.device)


def _forward(inputs: Sequence[Any], attrs: ResizeAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    height, width = (int(v) for v in inputs[1])
    rows, columns = _source(x.shape[2], height, attrs, x), _source(x.shape[3], width, attrs, x)
    return x.index_select(2, rows).index_select(3, columns)


OP = OpSpec(
    name="RESIZE_NEAREST_NEIGHBOR",
    options="ResizeNearestNeighborOptions",
    attrs=ResizeAttrs,
    infer_shape=resized_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no int8 RESIZE_NEAREST_NEIGHBOR",
    local=True,
    copies=Copies.SOME,
)
