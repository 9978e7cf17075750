"""RELU as an op of its own (where it could not be fused)."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.integer import clamped
from qhyvit.ops.shared.spec import Nonnegative, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

OP = OpSpec(
    name="RELU",
    infer_shape=same_shape,
    forward=unary(torch.relu),
    integer=clamped(0, None),
    delegate="XNNPACK has no int8 RELU alone: fuse it",
    nonnegative=Nonnegative.ALWAYS,
    homogeneous=True,
    xnnpack=("Clamp",),
)
