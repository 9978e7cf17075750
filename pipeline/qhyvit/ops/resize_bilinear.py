"""RESIZE_BILINEAR of [N, H, W, C] to a constant [height, width].

In int8 XNNPACK rounds half up, the builtin kernel half away from zero: both exact where the shares are short binary
fractions (twice the size, half-pixel centers). Elsewhere they compute with rounded shares: up to 4 % (XNNPACK) and
33 % (builtin) of the codes differ from exact arithmetic, by 1, in the builtin kernel by up to 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.ops._integer import half_up, rounds
from qhyvit.ops._resize import ResizeAttrs, pixels, resized_shape, step
from qhyvit.ops._spec import OpSpec, Tied


def _mix(size: int, new_size: int, attrs: ResizeAttrs, like: torch.Tensor) -> torch.Tensor:
    """[new_size, size]: how much of each old pixel goes into each new one."""
    position = pixels(new_size) * step(size, new_size, attrs)
    if attrs.half_pixel_centers:
        position += 0.5 * step(size, new_size, attrs) - 0.5
    position = position.clip(0, size - 1)
    low = np.floor(position).astype(int)
    high, share, rows = np.minimum(low + 1, size - 1), position - low, np.arange(new_size)
    mix = np.zeros((new_size, size))
    np.add.at(mix, (rows, low), 1 - share)
    np.add.at(mix, (rows, high), share)
    return torch.as_tensor(mix, dtype=like.dtype, device=like.device)


def _forward(inputs: Sequence[Any], attrs: ResizeAttrs) -> torch.Tensor:
    x, (height, width) = inputs[0], (int(v) for v in inputs[1])
    rows, columns = _mix(x.shape[2], height, attrs, x), _mix(x.shape[3], width, attrs, x)
    # [B, N, H, W, C] -> [B, N, height, width, C]
    return torch.einsum("yh,bnhwc,xw->bnyxc", rows, x, columns)


OP = OpSpec(
    name="RESIZE_BILINEAR",
    options="ResizeBilinearOptions",
    attrs=ResizeAttrs,
    infer_shape=resized_shape,
    forward=_forward,
    out=Tied(rounds=True),
    integer=rounds(_forward, half_up),
)
