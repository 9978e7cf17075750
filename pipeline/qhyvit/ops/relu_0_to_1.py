"""RELU_0_TO_1: values kept between 0 and 1 (where that could not be fused)."""

from __future__ import annotations

from qhyvit.ops.shared.integer import clamped
from qhyvit.ops.shared.spec import Nonnegative, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

OP = OpSpec(
    name="RELU_0_TO_1",
    infer_shape=same_shape,
    forward=unary(lambda x: x.clamp(0, 1)),
    integer=clamped(0, 1),
    delegate="XNNPACK has no int8 RELU_0_TO_1 alone",
    nonnegative=Nonnegative.ALWAYS,
    xnnpack=("Clamp",),
)
