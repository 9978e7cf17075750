"""ELU: x above zero, exp(x) - 1 below. In int8 a table of 256 codes: the cheapest exponential that XNNPACK has."""

from __future__ import annotations

import torch.nn.functional as F

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

OP = OpSpec(
    name="ELU",
    infer_shape=same_shape,
    forward=unary(F.elu),
    quantizer=False,
    floor=-1.0,
    stand_in="SQRT",
)
