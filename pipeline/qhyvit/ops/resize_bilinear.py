"""RESIZE_BILINEAR of [N, H, W, C] to a constant [height, width].

In int8 XNNPACK rounds half up and has shares of 11 bits, the builtin kernel rounds half away from zero and has
positions of 10 bits: both exact where the shares are short binary fractions (twice the size, half-pixel centers).
Elsewhere up to 4 % (XNNPACK) and 33 % (builtin) of the codes differ from exact arithmetic, by 1, in the builtin kernel
by up to 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qhyvit.ops.shared.integer import saturated
from qhyvit.ops.shared.resize import ResizeAttrs, pixels, resized_shape, step
from qhyvit.ops.shared.spec import Codes, Kernel, OpSpec, Quants, Tied


def _mix(low: NDArray[np.int64], share: NDArray[Any], size: int, one: float) -> NDArray[np.float64]:
    """[new_size, size]: how much of each old pixel goes into each new one, ``share`` of ``one`` from above ``low``."""
    mix, rows = np.zeros((len(low), size)), np.arange(len(low))
    np.add.at(mix, (rows, low), one - share)
    np.add.at(mix, (rows, np.minimum(low + 1, size - 1)), share)
    return mix


def _positions(size: int, new_size: int, attrs: ResizeAttrs, dtype: Any) -> NDArray[Any]:
    """[new_size]: where each new pixel lies among the old ones."""
    distance = dtype(step(size, new_size, attrs))
    offset = dtype(0.5) * distance - dtype(0.5) if attrs.half_pixel_centers else dtype(0)
    found: NDArray[Any] = (pixels(new_size).astype(dtype) * distance + offset).clip(0, size - 1)
    return found


def _real(size: int, new_size: int, attrs: ResizeAttrs) -> NDArray[np.float64]:
    position = _positions(size, new_size, attrs, np.float64)
    low = np.floor(position).astype(np.int64)
    return _mix(low, position - low, size, 1.0)


def _of_11_bits(size: int, new_size: int, attrs: ResizeAttrs) -> NDArray[np.float64]:
    """XNNPACK's shares: float32 positions, rounded to 2^-11."""
    position = _positions(size, new_size, attrs, np.float32)
    low = np.floor(position).astype(np.int64)
    return _mix(low, np.rint((position - low.astype(np.float32)) * np.float32(2**11)), size, 2**11)


def _of_10_bits(size: int, new_size: int, attrs: ResizeAttrs) -> NDArray[np.float64]:
    """The builtin kernel's: positions that are integers, in steps of 2^-10 old pixels."""
    corners = int(attrs.align_corners and new_size > 1)
    old, new = size - corners, new_size - corners
    distance = (old * 2**10 + new // 2) // new
    position = np.arange(new_size) * distance + (distance // 2 - 2**9 if attrs.half_pixel_centers else 0)
    inside = np.maximum(position, 0)  # before the first pixel's middle there is that pixel alone
    low = inside >> 10
    return _mix(np.minimum(low, size - 1), inside - (low << 10), size, 2**10)


def _mixed(x: torch.Tensor, to: Any, attrs: ResizeAttrs, mix: Callable[..., NDArray[np.float64]]) -> torch.Tensor:
    """[B, N, H, W, C] -> [B, N, height, width, C]."""
    rows, columns = (torch.as_tensor(mix(old, int(new), attrs), dtype=x.dtype, device=x.device)
                     for old, new in zip(x.shape[2:4], to, strict=True))  # fmt: skip
    return torch.einsum("yh,bnhwc,xw->bnyxc", rows, x, columns)


def _forward(inputs: Sequence[Any], attrs: ResizeAttrs) -> torch.Tensor:
    return _mixed(inputs[0], inputs[1], attrs, _real)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: ResizeAttrs, kernel: Kernel) -> list[np.ndarray]:
    """Codes, zero point included, times integers that add up to a power of two."""
    assert codes[0] is not None
    x, (write,) = torch.from_numpy(codes[0].astype(np.float64)), quants.writes
    if kernel.is_reference:
        total = _mixed(x, codes[1], attrs, _of_10_bits).numpy() / 2**20
        return [saturated(np.trunc(total + np.where(total > 0, 0.5, -0.5)), write)]
    total = _mixed(x, codes[1], attrs, _of_11_bits).numpy() / 2**22
    return [saturated(np.floor(total + 0.5), write)]


OP = OpSpec(
    name="RESIZE_BILINEAR",
    options="ResizeBilinearOptions",
    attrs=ResizeAttrs,
    infer_shape=resized_shape,
    forward=_forward,
    out=Tied(rounds=True),
    integer=_integer,
    local=True,
    xnnpack=("Resize Bilinear",),
)
