"""ELU: x above zero, exp(x) - 1 below. In int8 a table of 256 codes: the cheapest exponential that XNNPACK has."""

from __future__ import annotations

import torch.nn.functional as F

from qhyvit.ops._integer import tabulated
from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

_forward = unary(F.elu)

OP = OpSpec(
    name="ELU",
    infer_shape=same_shape,
    forward=_forward,
    integer=tabulated(_forward),
    floor=-1.0,
)
