"""REDUCE_MIN over constant axes; its int8 result keeps the scale of the operand."""

from __future__ import annotations

import torch

from qhyvit.ops._reduce import ReducerAttrs, reduced_shape, reduction
from qhyvit.ops._spec import OpSpec, Tied

OP = OpSpec(
    name="REDUCE_MIN",
    options="ReducerOptions",
    attrs=ReducerAttrs,
    infer_shape=reduced_shape,
    forward=reduction(torch.amin),
    out=Tied(),
)
