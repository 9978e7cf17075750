"""LOGISTIC: the sigmoid; its int8 output has a prescribed grid."""

from __future__ import annotations

import torch

from qhyvit.ops._spec import Fixed, OpSpec
from qhyvit.ops._unary import same_shape, unary

OP = OpSpec(
    name="LOGISTIC",
    infer_shape=same_shape,
    forward=unary(torch.sigmoid),
    out=Fixed(1 / 256, -128),
)
