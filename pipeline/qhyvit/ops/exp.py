"""EXP: float only; int8 would lose most of a result that spans orders of magnitude."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.spec import Nonnegative, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

OP = OpSpec(
    name="EXP",
    options="ExpOptions",
    infer_shape=same_shape,
    forward=unary(torch.exp),
    delegate="XNNPACK has no int8 EXP",
    nonnegative=Nonnegative.ALWAYS,
    table=True,
    xnnpack=("Exp",),
)
