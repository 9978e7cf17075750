"""ADD: elementwise sum with broadcasting."""

from __future__ import annotations

import operator

from qhyvit.ops._elementwise import ElementwiseAttrs, binary, broadcast_shape, fixed_point_sum, int16_sum
from qhyvit.ops._spec import OpSpec

OP = OpSpec(
    name="ADD",
    options="AddOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=binary(operator.add),
    operand_steps=fixed_point_sum(1),
    int16_steps=int16_sum(1),
)
