"""Padding, layout, output size and arithmetic shared by the convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops.shared.spec import Shape


def to_nchw(x: torch.Tensor) -> torch.Tensor:
    """[B, N, H, W, C] -> [B * N, C, H, W] as a view: torch sees channels-last memory, nothing is copied."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def to_nhwc(x: torch.Tensor, batch: int) -> torch.Tensor:
    """[B * N, C, H, W] -> [B, N, H, W, C]."""
    return torch.unflatten(x.permute(0, 2, 3, 1), 0, (batch, -1))


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
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: str,
    value: float = 0.0,
) -> torch.Tensor:
    """Pad [N, C, H, W] with ``value`` as ``padding`` asks."""
    if padding != "SAME":
        return x
    top, bottom = same_pads(x.shape[2], kernel[0], stride[0], dilation[0])
    left, right = same_pads(x.shape[3], kernel[1], stride[1], dilation[1])
    if not (top or bottom or left or right):
        return x
    return F.pad(x, (left, right, top, bottom), value=value)


def convolve(inputs: Sequence[Any], weight: torch.Tensor, attrs: Any) -> torch.Tensor:
    """Convolution of [B, N, H, W, C] with ``weight`` [O, C / groups, kh, kw] and the bias, inputs[2], if any."""
    bias = inputs[2] if len(inputs) > 2 else None
    if weight.shape[2:] == (1, 1) and attrs.stride_h == attrs.stride_w == 1:
        return _pointwise(inputs[0], weight.flatten(1), bias)
    x = to_nchw(inputs[0])
    stride, dilation = (attrs.stride_h, attrs.stride_w), (attrs.dilation_h_factor, attrs.dilation_w_factor)
    x = pad_nchw(x, weight.shape[2:], stride, dilation, attrs.padding)
    groups = x.shape[1] // weight.shape[1]
    y = F.conv2d(x, weight, bias, stride=stride, dilation=dilation, groups=groups)
    return to_nhwc(y, inputs[0].shape[0])


def _pointwise(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """[.., C] with ``weight`` [O, C / groups] as a matrix product; conv2d has another algorithm on several threads."""
    inputs = weight.shape[1]
    groups = x.shape[-1] // inputs
    if groups == 1:
        return F.linear(x, weight, bias)
    seen, taps = torch.unflatten(x, -1, (groups, inputs)), weight.reshape(groups, -1, inputs)
    y = seen * taps[..., 0] if inputs == 1 else torch.einsum("...gi,goi->...go", seen, taps)
    return y.flatten(-2) if bias is None else y.flatten(-2) + bias


def convolved_shape(shapes: Sequence[Shape], attrs: Any, outputs: int) -> Shape:
    """Shape of the result of a convolution with weight [_, kh, kw, _] and ``outputs`` channels."""
    (n, h, w, _), (_, kh, kw, _) = shapes[0], shapes[1]
    height = out_size(h, kh, attrs.stride_h, attrs.dilation_h_factor, attrs.padding)
    width = out_size(w, kw, attrs.stride_w, attrs.dilation_w_factor, attrs.padding)
    return n, height, width, outputs


def window_sums(x: torch.Tensor, weight: torch.Tensor, attrs: Any) -> torch.Tensor:
    """The convolution of [B, N, H, W, C] with ``weight`` [O, kh, kw, C / groups], one tap after the other.

    Each tap is a matrix product: of integers no other values arise than their sums, as they may in a transformed
    convolution.
    """
    outputs, height, width, inputs = weight.shape
    groups, (stride_h, stride_w) = x.shape[-1] // inputs, (attrs.stride_h, attrs.stride_w)
    dilation = attrs.dilation_h_factor, attrs.dilation_w_factor
    padded = pad_nchw(to_nchw(x), (height, width), (stride_h, stride_w), dilation, attrs.padding).permute(0, 2, 3, 1)
    rows, columns = (
        out_size(size, kernel, stride, d, attrs.padding)
        for size, kernel, stride, d in zip(x.shape[2:4], (height, width), (stride_h, stride_w), dilation, strict=True)
    )
    total = x.new_zeros(len(padded), rows, columns, groups, outputs // groups)
    taps = weight.reshape(groups, outputs // groups, height, width, inputs)
    for i in range(height):
        for j in range(width):
            top, left, tap = i * dilation[0], j * dilation[1], taps[:, :, i, j]
            below, right = top + (rows - 1) * stride_h + 1, left + (columns - 1) * stride_w + 1
            seen = torch.unflatten(padded[:, top:below:stride_h, left:right:stride_w], -1, (groups, inputs))
            total += seen * tap[..., 0] if inputs == 1 else torch.einsum("nhwgi,goi->nhwgo", seen, tap)
    return torch.unflatten(total.flatten(-2), 0, (x.shape[0], -1))
