"""BROADCAST_TO a constant shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Shape, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    target = [int(v) for v in inputs[1]]
    ones = [1] * (len(target) - (x.dim() - 1))
    return x.reshape(x.shape[0], *ones, *x.shape[1:]).expand(-1, *target)


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    return tuple(int(v) for v in constants[1])


OP = OpSpec(
    name="BROADCAST_TO",
    options="BroadcastToOptions",
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no int8 BROADCAST_TO: let the reader broadcast",
    copies=Copies.REPEATED,
    version=3,
)
