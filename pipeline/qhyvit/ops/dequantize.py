"""DEQUANTIZE: codes or float16 to float32.

Our float graphs hold real numbers, so there it passes them on.
"""

from __future__ import annotations

from qhyvit.ops.shared.spec import OpSpec
from qhyvit.ops.shared.unary import real_values, same_shape, unary

OP = OpSpec(
    name="DEQUANTIZE",
    options="DequantizeOptions",
    infer_shape=same_shape,
    forward=unary(real_values),
    version=2,
    xnnpack=("Convert",),
)
