"""EXPAND_DIMS: a new axis of size 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Shape, Tied


def _axis(axis_input: Any, rank: int) -> int:
    return int(np.asarray(axis_input).item()) % (rank + 1)


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    return x.unsqueeze(_axis(inputs[1], x.dim() - 1) + 1)


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    axis = _axis(constants[1], len(shapes[0]))
    return (*shapes[0][:axis], 1, *shapes[0][axis:])


OP = OpSpec(
    name="EXPAND_DIMS",
    options="ExpandDimsOptions",
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no int8 EXPAND_DIMS: write it as RESHAPE",
    copies=Copies.ONCE,
    xnnpack=("Static Reshape",),
)
