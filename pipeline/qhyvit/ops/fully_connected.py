"""FULLY_CONNECTED: weight [O, I], optional bias [O]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.errors import GraphError
from qhyvit.ops._spec import FusedActivation, OpSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FullyConnectedAttrs:
    """Attributes of FullyConnectedOptions."""

    fused_activation_function: str = FusedActivation.NONE
    weights_format: int = 0
    keep_num_dims: bool = False


def _shape(shapes: Sequence[Shape], attrs: FullyConnectedAttrs, constants: Sequence[Any]) -> Shape:
    if attrs.weights_format != 0:
        raise GraphError("FULLY_CONNECTED with shuffled weights is not supported")
    outputs, inputs = shapes[1]
    if attrs.keep_num_dims:
        return (*shapes[0][:-1], outputs)
    count = 1
    for s in shapes[0]:
        count *= s
    return (count // inputs, outputs)


def _forward(inputs: Sequence[Any], attrs: FullyConnectedAttrs) -> torch.Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    if not attrs.keep_num_dims:
        x = x.reshape(x.shape[0], -1, weight.shape[1])
    return F.linear(x, weight, bias)


def _macs(shapes: Sequence[Shape], out: Shape) -> int:
    total = shapes[1][1]
    for s in out:
        total *= s
    return total


OP = OpSpec(
    name="FULLY_CONNECTED",
    options="FullyConnectedOptions",
    attrs=FullyConnectedAttrs,
    infer_shape=_shape,
    forward=_forward,
    weight_input=1,
    weight_axis=0,
    bias_input=2,
    macs=_macs,
)
