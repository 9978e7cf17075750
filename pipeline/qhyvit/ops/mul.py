"""MUL: elementwise product with broadcasting."""

from __future__ import annotations

import operator

from qhyvit.ops._elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops._spec import OpSpec

OP = OpSpec(
    name="MUL",
    options="MulOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=binary(operator.mul),
    accumulates=True,
)
