"""SUB: elementwise difference with broadcasting."""

from __future__ import annotations

import operator

from qhyvit.ops.shared.elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops.shared.integer import sums
from qhyvit.ops.shared.spec import OpSpec

OP = OpSpec(
    name="SUB",
    options="SubOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=binary(operator.sub),
    integer=sums(-1),
    homogeneous=True,
    pairwise=True,
    xnnpack=("Subtract",),
)
