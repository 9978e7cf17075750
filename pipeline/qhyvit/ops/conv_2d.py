"""CONV_2D: [N, H, W, C] input, weight [O, kh, kw, I / groups], optional bias [O]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.conv import convolve, convolved_shape, window_sums
from qhyvit.ops.shared.integer import accumulates
from qhyvit.ops.shared.layer_view import CONVOLUTION
from qhyvit.ops.shared.spec import FusedActivation, OpSpec, Shape


@dataclass(frozen=True)
class Conv2DAttrs:
    """Attributes of Conv2DOptions."""

    padding: str = "SAME"
    stride_h: int = 1
    stride_w: int = 1
    dilation_h_factor: int = 1
    dilation_w_factor: int = 1
    fused_activation_function: str = FusedActivation.NONE


def _forward(inputs: Sequence[Any], attrs: Conv2DAttrs) -> torch.Tensor:
    # [O, kh, kw, I] -> [O, I, kh, kw]
    return convolve(inputs, inputs[1].permute(0, 3, 1, 2), attrs)


def _sums(steps: Sequence[Any], attrs: Conv2DAttrs) -> torch.Tensor:
    return window_sums(steps[0], steps[1], attrs)


def _shape(shapes: Sequence[Shape], attrs: Conv2DAttrs, constants: Sequence[Any]) -> Shape:
    return convolved_shape(shapes, attrs, shapes[1][0])


def _macs(shapes: Sequence[Shape], out: Shape) -> int:
    _, kh, kw, i = shapes[1]
    return math.prod(out) * kh * kw * i


OP = OpSpec(
    name="CONV_2D",
    options="Conv2DOptions",
    attrs=Conv2DAttrs,
    infer_shape=_shape,
    forward=_forward,
    weight_input=1,
    weight_axis=0,
    bias_input=2,
    layer=CONVOLUTION,
    macs=_macs,
    factors=(0, 1),
    integer=accumulates(_sums, 0, 1, 2, summed=lambda attrs: (-3, -2, -1)),
    xnnpack=("Convolution", "Fully Connected"),
)
