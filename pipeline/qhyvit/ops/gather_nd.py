"""GATHER_ND: slices at constant positions: the last axis of the indices counts the axes of the operand in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Shape, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x, indices = inputs[0], torch.as_tensor(np.asarray(inputs[1]).astype(np.int64), device=inputs[0].device)
    picked: torch.Tensor = x[(slice(None), *indices.unbind(-1))]
    return picked


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    indices = np.asarray(constants[1]).shape
    return (*indices[:-1], *shapes[0][indices[-1] :])


OP = OpSpec(
    name="GATHER_ND",
    options="GatherNdOptions",
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no int8 GATHER_ND",
    copies=Copies.SOME,
)
