"""MAXIMUM: elementwise, with broadcasting; operands and result share one scale."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.elementwise import binary, broadcast_shape
from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Nonnegative, OpSpec, Tied

_forward = binary(torch.maximum)

OP = OpSpec(
    name="MAXIMUM",
    options="MaximumMinimumOptions",
    infer_shape=broadcast_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(None),
    delegate="XNNPACK has no int8 MAXIMUM",
    nonnegative=Nonnegative.OF_ANY,
    homogeneous=True,
    pairwise=True,
    xnnpack=("Clamp", "Maximum"),
)
