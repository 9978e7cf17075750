"""SQUARE: float only; MUL(x, x) is the int8 form."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.spec import Nonnegative, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

OP = OpSpec(
    name="SQUARE",
    options="SquareOptions",
    infer_shape=same_shape,
    forward=unary(torch.square),
    delegate="there is no int8 SQUARE kernel: write MUL(x, x)",
    nonnegative=Nonnegative.ALWAYS,
    xnnpack=("Square (",),
)
