"""TRANSPOSE_CONV: output shape [4], weight [O, kh, kw, I], [N, H, W, I] input, optional bias [O].

Pixel i adds its product with the weight to the output's pixels from i * stride - pad on; what falls outside is cut
off. ``pad`` is half of what the windows reach beyond the output (SAME), or 0 (VALID).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops.shared.conv import to_nchw, to_nhwc
from qhyvit.ops.shared.integer import accumulates
from qhyvit.ops.shared.layer_view import LayerView, grouped, one_group, outputs_first, reshaped
from qhyvit.ops.shared.spec import FusedActivation, OpSpec, Shape


@dataclass(frozen=True)
class TransposeConvAttrs:
    """Attributes of TransposeConvOptions."""

    padding: str = "SAME"
    stride_h: int = 1
    stride_w: int = 1
    fused_activation_function: str = FusedActivation.NONE

    @property
    def strides(self) -> tuple[int, int]:
        """Height and width."""
        return self.stride_h, self.stride_w


def _cut(size: int, out: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """What of the result, (size - 1) * stride + kernel, lies before the output and behind it (negative: zeros)."""
    before = 0
    if padding == "SAME":
        before = max((-(-out // stride) - 1) * stride + kernel - out, 0) // 2
    return before, (size - 1) * stride + kernel - before - out


def _cuts(data: Shape, out: Shape, kernel: Shape, attrs: TransposeConvAttrs) -> list[tuple[int, int]]:
    sizes = zip(data[-3:-1], out[-3:-1], kernel, attrs.strides, strict=True)
    return [_cut(size, o, k, stride, attrs.padding) for size, o, k, stride in sizes]


def _forward(inputs: Sequence[Any], attrs: TransposeConvAttrs) -> torch.Tensor:
    out, weight, x = tuple(int(v) for v in inputs[0]), inputs[1], inputs[2]
    (top, bottom), (left, right) = _cuts(x.shape, out, weight.shape[1:3], attrs)
    # [O, kh, kw, I] -> [I, O, kh, kw]
    whole = F.conv_transpose2d(to_nchw(x), weight.permute(3, 0, 1, 2), None, stride=attrs.strides)
    y = to_nhwc(F.pad(whole, (-left, -right, -top, -bottom)), x.shape[0])
    bias = inputs[3] if len(inputs) > 3 else None
    return y if bias is None else y + bias


def _sums(steps: Sequence[Any], attrs: TransposeConvAttrs) -> torch.Tensor:
    """One tap after the other, exact in float32 as :func:`window_sums` is."""
    out, weight, x = tuple(int(v) for v in steps[0]), steps[1], steps[2].flatten(0, 1)
    (outputs, height, width, _), (stride_h, stride_w) = weight.shape, attrs.strides
    rows, columns = x.shape[1:3]
    whole = x.new_zeros(len(x), (rows - 1) * stride_h + height, (columns - 1) * stride_w + width, outputs)
    for i in range(height):
        for j in range(width):
            whole[:, i : i + (rows - 1) * stride_h + 1 : stride_h, j : j + (columns - 1) * stride_w + 1 : stride_w] += (
                x @ weight[:, i, j].T
            )
    (top, bottom), (left, right) = _cuts(steps[2].shape, out, weight.shape[1:3], attrs)
    return torch.unflatten(F.pad(whole, (0, 0, -left, -right, -top, -bottom)), 0, (len(steps[2]), -1))


def _shape(shapes: Sequence[Shape], attrs: TransposeConvAttrs, constants: Sequence[Any]) -> Shape:
    return tuple(int(v) for v in constants[0])


def _macs(shapes: Sequence[Shape], out: Shape) -> int:
    outputs, kh, kw, _ = shapes[1]
    return math.prod(shapes[2]) * outputs * kh * kw


def _patches(x: torch.Tensor, weight: Shape, out: Shape, attrs: TransposeConvAttrs, groups: int) -> torch.Tensor:
    """Zeros between the pixels make it a plain convolution with the weight turned round."""
    image, (stride_h, stride_w), kernel = to_nchw(x), attrs.strides, weight[1:3]
    height, width = ((n - 1) * s + 1 for n, s in zip(image.shape[2:], attrs.strides, strict=True))
    spaced = image.new_zeros((*image.shape[:2], height, width))
    spaced[:, :, ::stride_h, ::stride_w] = image
    (top, bottom), (left, right) = ((k - 1 - a, k - 1 - b) for (a, b), k in zip(
        _cuts(tuple(x.shape), out, kernel, attrs), kernel, strict=True
    ))  # fmt: skip
    columns = F.unfold(F.pad(spaced, (left, right, top, bottom)), kernel)
    taps = kernel[0] * kernel[1]
    turned = torch.unflatten(columns, 1, (-1, taps)).flip(2).flatten(1, 2)
    return grouped(turned, taps, groups)


OP = OpSpec(
    name="TRANSPOSE_CONV",
    options="TransposeConvOptions",
    attrs=TransposeConvAttrs,
    infer_shape=_shape,
    forward=_forward,
    data_input=2,
    weight_input=1,
    weight_axis=0,
    bias_input=3,
    layer=LayerView(one_group, outputs_first, reshaped, _patches),
    macs=_macs,
    factors=(2, 1),
    integer=accumulates(_sums, 2, 1, 3, summed=lambda attrs: (-3, -2, -1)),
    version=4,
    xnnpack=("Deconvolution",),
)
