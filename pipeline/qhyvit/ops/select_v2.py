"""SELECT_V2: elementwise choice by a constant condition, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops._elementwise import align, broadcast_shape
from qhyvit.ops._spec import NoAttrs, OpSpec, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    condition, yes, no = inputs
    condition = torch.as_tensor(condition, device=yes.device).unsqueeze(0)  # [*file shape] -> [1, *file shape]
    return torch.where(*align(condition, yes, no))


OP = OpSpec(
    name="SELECT_V2",
    options="SelectV2Options",
    infer_shape=broadcast_shape,
    forward=_forward,
    out=Tied((1, 2)),
    delegate="XNNPACK has no int8 SELECT_V2",
)
