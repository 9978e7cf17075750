"""Padding, layout and output size shared by the convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def to_nchw(x: torch.Tensor) -> torch.Tensor:
    """[B, N, H, W, C] -> [B * N, C, H, W] as a view: torch sees channels-last memory, nothing is copied."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def to_nhwc(x: torch.Tensor, batch: int) -> torch.Tensor:
    """[B * N, C, H, W] -> [B, N, H, W, C]."""
    return x.permute(0, 2, 3, 1).unflatten(0, (batch, -1))


def out_size(size: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """Output height or width of a TFLite window op."""
    if padding == "SAME":
        return -(-size // stride)
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def same_pads(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after for SAME: the odd one goes after (TFLite)."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def pad_nchw(
    x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], padding: str
) -> torch.Tensor:
    """Zero-pad [N, C, H, W] as ``padding`` asks."""
    if padding != "SAME":
        return x
    top, bottom = same_pads(x.shape[2], kernel[0], stride[0], dilation[0])
    left, right = same_pads(x.shape[3], kernel[1], stride[1], dilation[1])
    if not (top or bottom or left or right):
        return x
    return F.pad(x, (left, right, top, bottom))
