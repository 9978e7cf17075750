"""DIV: elementwise quotient with broadcasting.

The int8 kernel stops with an error where a divisor's code equals its zero point.
"""

from __future__ import annotations

import operator

from qhyvit.ops._elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops._spec import OpSpec

OP = OpSpec(
    name="DIV",
    options="DivOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=binary(operator.truediv),
    delegate="XNNPACK has no int8 DIV",
    since_runtime="2.17.0",
)
