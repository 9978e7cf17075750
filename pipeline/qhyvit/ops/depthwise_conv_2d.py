"""DEPTHWISE_CONV_2D: [N, H, W, C] input, weight [1, kh, kw, C * multiplier]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops._conv import out_size, pad_nchw, to_nchw, to_nhwc
from qhyvit.ops._spec import FusedActivation, OpSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class DepthwiseConv2DAttrs:
    """Attributes of DepthwiseConv2DOptions."""

    padding: str = "SAME"
    stride_h: int = 1
    stride_w: int = 1
    depth_multiplier: int = 1
    dilation_h_factor: int = 1
    dilation_w_factor: int = 1
    fused_activation_function: str = FusedActivation.NONE


def _forward(inputs: Sequence[Any], attrs: DepthwiseConv2DAttrs) -> torch.Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    stride, dilation = (attrs.stride_h, attrs.stride_w), (attrs.dilation_h_factor, attrs.dilation_w_factor)
    # [1, kh, kw, C * multiplier] -> [C * multiplier, 1, kh, kw]
    w = weight.permute(3, 0, 1, 2)
    batch, channels = x.shape[0], x.shape[-1]
    x = pad_nchw(to_nchw(x), weight.shape[1:3], stride, dilation, attrs.padding)
    return to_nhwc(F.conv2d(x, w, bias, stride=stride, dilation=dilation, groups=channels), batch)


def _shape(shapes: Sequence[Shape], attrs: DepthwiseConv2DAttrs, constants: Sequence[Any]) -> Shape:
    n, h, w, _ = shapes[0]
    _, kh, kw, o = shapes[1]
    return (
        n,
        out_size(h, kh, attrs.stride_h, attrs.dilation_h_factor, attrs.padding),
        out_size(w, kw, attrs.stride_w, attrs.dilation_w_factor, attrs.padding),
        o,
    )


def _macs(shapes: Sequence[Shape], out: Shape) -> int:
    _, kh, kw, _ = shapes[1]
    return out[0] * out[1] * out[2] * out[3] * kh * kw


OP = OpSpec(
    name="DEPTHWISE_CONV_2D",
    options="DepthwiseConv2DOptions",
    attrs=DepthwiseConv2DAttrs,
    infer_shape=_shape,
    forward=_forward,
    weight_input=1,
    weight_axis=3,
    bias_input=2,
    macs=_macs,
)
