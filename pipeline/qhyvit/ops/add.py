"""ADD: elementwise sum with broadcasting."""

from __future__ import annotations

import operator

from qhyvit.ops.shared.elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops.shared.integer import sums
from qhyvit.ops.shared.spec import Nonnegative, OpSpec

OP = OpSpec(
    name="ADD",
    options="AddOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=binary(operator.add),
    integer=sums(1),
    nonnegative=Nonnegative.OF_ALL,
    homogeneous=True,
    pairwise=True,
    xnnpack=("Add (",),
)
