"""QUANTIZE: float to codes, or codes to codes of another grid.

Our graphs hold real numbers, so it passes them on: rounding to the output's grid is the business of a hook, as
everywhere.
"""

from __future__ import annotations

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import real_values, same_shape, unary

OP = OpSpec(name="QUANTIZE", options="QuantizeOptions", infer_shape=same_shape, forward=unary(real_values))
