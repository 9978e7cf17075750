"""MINIMUM: elementwise, with broadcasting; operands and result share one scale."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.elementwise import binary, broadcast_shape
from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Nonnegative, OpSpec, Tied

_forward = binary(torch.minimum)

OP = OpSpec(
    name="MINIMUM",
    options="MaximumMinimumOptions",
    infer_shape=broadcast_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(None),
    delegate="XNNPACK has no int8 MINIMUM",
    nonnegative=Nonnegative.OF_ALL,
    homogeneous=True,
    pairwise=True,
    xnnpack=("Clamp", "Minimum"),
)
