"""ABS: left float by the quantizer."""

from __future__ import annotations

import torch

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

OP = OpSpec(
    name="ABS",
    options="AbsOptions",
    infer_shape=same_shape,
    forward=unary(torch.abs),
    quantizer=False,
    delegate="XNNPACK has no int8 ABS",
)
