"""FULLY_CONNECTED: weight [O, I], optional bias [O]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from qhyvit.errors import GraphError
from qhyvit.ops.shared.fixed_point import requantized_once, requantized_once_up, requantized_up
from qhyvit.ops.shared.integer import accumulates
from qhyvit.ops.shared.layer_view import DENSE
from qhyvit.ops.shared.spec import Codes, FusedActivation, Kernel, OpSpec, Quants, Shape


@dataclass(frozen=True)
class FullyConnectedAttrs:
    """Attributes of FullyConnectedOptions."""

    fused_activation_function: str = FusedActivation.NONE
    weights_format: int = 0
    keep_num_dims: bool = False

    def __post_init__(self) -> None:
        if self.weights_format != 0:
            raise GraphError(f"FULLY_CONNECTED: weights format {self.weights_format} (shuffled), only 0 is supported")


def _shape(shapes: Sequence[Shape], attrs: FullyConnectedAttrs, constants: Sequence[Any]) -> Shape:
    outputs, inputs = shapes[1]
    if attrs.keep_num_dims:
        return (*shapes[0][:-1], outputs)
    return (math.prod(shapes[0]) // inputs, outputs)


def _forward(inputs: Sequence[Any], attrs: FullyConnectedAttrs) -> torch.Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    if not attrs.keep_num_dims:
        x = x.reshape(x.shape[0], -1, weight.shape[-1])
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    # weights that are computed, [B, O, I]: those of each image
    y = torch.matmul(x.flatten(1, -2), weight.transpose(1, 2)).reshape(*x.shape[:-1], weight.shape[1])
    return y if bias is None else y + bias


def _macs(shapes: Sequence[Shape], out: Shape) -> int:
    return math.prod(out) * shapes[1][1]


def _summed(attrs: FullyConnectedAttrs) -> tuple[int, ...]:
    return (-1,)


_by_constant = accumulates(_forward, 0, 1, 2, summed=_summed, builtin=requantized_once)
_by_micro = accumulates(_forward, 0, 1, 2, summed=_summed)
_by_computed = {
    Kernel.X86: accumulates(_forward, 0, 1, 2, summed=_summed, builtin=requantized_up),
    Kernel.ARM64: accumulates(_forward, 0, 1, 2, summed=_summed, builtin=requantized_once_up),
}


def _integer(codes: Sequence[Codes], quants: Quants, attrs: FullyConnectedAttrs, kernel: Kernel) -> list[np.ndarray]:
    """XNNPACK refuses weights that are computed, [B, O, I]: then a builtin kernel runs, one for each processor."""
    weight = codes[1]
    assert weight is not None
    if kernel is Kernel.TFLM:  # rounds twice
        return list(_by_micro(codes, quants, attrs, kernel))
    if weight.ndim == 3 and not kernel.is_reference:
        return list(_by_computed[kernel](codes, quants, attrs, Kernel.REFERENCE))
    return list(_by_constant(codes, quants, attrs, kernel))


OP = OpSpec(
    name="FULLY_CONNECTED",
    options="FullyConnectedOptions",
    attrs=FullyConnectedAttrs,
    infer_shape=_shape,
    forward=_forward,
    weight_input=1,
    weight_axis=0,
    bias_input=2,
    layer=DENSE,
    macs=_macs,
    factors=(0, 1),
    integer=_integer,
    version=5,
    xnnpack=("Fully Connected",),
)
