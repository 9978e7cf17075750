"""DEPTHWISE_CONV_2D: [N, H, W, C] input, weight [1, kh, kw, C * multiplier]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.conv import convolve, convolved_shape, window_sums
from qhyvit.ops.shared.integer import accumulates
from qhyvit.ops.shared.layer_view import DEPTHWISE
from qhyvit.ops.shared.spec import FusedActivation, OpSpec, Shape


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
    # [1, kh, kw, C * multiplier] -> [C * multiplier, 1, kh, kw]
    return convolve(inputs, inputs[1].permute(3, 0, 1, 2), attrs)


def _sums(steps: Sequence[Any], attrs: DepthwiseConv2DAttrs) -> torch.Tensor:
    return window_sums(steps[0], steps[1].permute(3, 1, 2, 0), attrs)


def _shape(shapes: Sequence[Shape], attrs: DepthwiseConv2DAttrs, constants: Sequence[Any]) -> Shape:
    return convolved_shape(shapes, attrs, shapes[1][3])


def _macs(shapes: Sequence[Shape], out: Shape) -> int:
    _, kh, kw, _ = shapes[1]
    return math.prod(out) * kh * kw


OP = OpSpec(
    name="DEPTHWISE_CONV_2D",
    options="DepthwiseConv2DOptions",
    attrs=DepthwiseConv2DAttrs,
    infer_shape=_shape,
    forward=_forward,
    weight_input=1,
    weight_axis=3,
    bias_input=2,
    layer=DEPTHWISE,
    macs=_macs,
    factors=(0, 1),
    integer=accumulates(_sums, 0, 1, 2, summed=lambda attrs: (-3, -2)),
    xnnpack=("Convolution",),
)
