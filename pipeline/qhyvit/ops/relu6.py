"""RELU6 as an op of its own (where it could not be fused)."""

from __future__ import annotations

import torch.nn.functional as F

from qhyvit.ops.shared.integer import clamped
from qhyvit.ops.shared.spec import Nonnegative, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

OP = OpSpec(
    name="RELU6",
    infer_shape=same_shape,
    forward=unary(F.relu6),
    integer=clamped(0, 6),
    delegate="XNNPACK has no int8 RELU6 alone: fuse it",
    nonnegative=Nonnegative.ALWAYS,
    xnnpack=("Clamp",),
)
