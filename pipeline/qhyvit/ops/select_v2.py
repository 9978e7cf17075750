"""SELECT_V2: elementwise choice by a constant condition, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.elementwise import align, broadcast_shape
from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    where = torch.tensor(inputs[0], device=inputs[1].device).unsqueeze(0)  # [*file shape] -> [1, *file shape]
    condition, yes, no = align(where, inputs[1], inputs[2])
    return torch.where(condition, yes, no)


OP = OpSpec(
    name="SELECT_V2",
    options="SelectV2Options",
    infer_shape=broadcast_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied((1, 2)),
    delegate="XNNPACK has no int8 SELECT_V2",
    copies=Copies.SOME,
)
