"""DIV: elementwise quotient with broadcasting; float only.

LiteRT 2.3 has an int8 kernel, but it is wrong: a quotient other than 0 that is small against the output's step comes
out as the highest or lowest code (an attention weight of 0.0001 as 1), and a divisor's code equal to its zero point is
an error.
"""

from __future__ import annotations

import operator

from qhyvit.ops.shared.elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops.shared.spec import Nonnegative, OpSpec

OP = OpSpec(
    name="DIV",
    options="DivOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=binary(operator.truediv),
    delegate="the int8 DIV kernel makes small quotients huge: rewrite it, for example as SOFTMAX",
    nonnegative=Nonnegative.OF_ALL,
    pairwise=True,
    xnnpack=("Divide",),
)
