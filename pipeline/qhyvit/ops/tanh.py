"""TANH: its int8 output has a prescribed grid."""

from __future__ import annotations

import torch

from qhyvit.ops._integer import tabulated
from qhyvit.ops._spec import Fixed, OpSpec
from qhyvit.ops._unary import same_shape, unary

_forward = unary(torch.tanh)

OP = OpSpec(
    name="TANH",
    infer_shape=same_shape,
    forward=_forward,
    integer=tabulated(_forward),
    out=Fixed(1 / 128, 0),
)
