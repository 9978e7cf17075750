"""REDUCE_MIN over constant axes; its int8 result keeps the scale of the operand."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.reduce import ReducerAttrs, reduced_shape, reduction
from qhyvit.ops.shared.spec import OpSpec, Tied

_forward = reduction(torch.amin)

OP = OpSpec(
    name="REDUCE_MIN",
    options="ReducerOptions",
    attrs=ReducerAttrs,
    infer_shape=reduced_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
)
