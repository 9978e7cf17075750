"""SQUARED_DIFFERENCE: (a - b) ** 2 with broadcasting; SUB and MUL are much faster in int8."""

from __future__ import annotations

import torch

from qhyvit.ops._elementwise import binary, broadcast_shape
from qhyvit.ops._integer import rounds
from qhyvit.ops._spec import OpSpec


def _squared_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square()


_forward = binary(_squared_difference)

OP = OpSpec(
    name="SQUARED_DIFFERENCE",
    options="SquaredDifferenceOptions",
    infer_shape=broadcast_shape,
    forward=_forward,
    integer=rounds(_forward),
    delegate="XNNPACK has no int8 SQUARED_DIFFERENCE: rewrite it as SUB and MUL",
)
