"""SUB: elementwise difference with broadcasting."""

from __future__ import annotations

import operator

from qhyvit.ops._elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops._integer import sums
from qhyvit.ops._spec import OpSpec

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
