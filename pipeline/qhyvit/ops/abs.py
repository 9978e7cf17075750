"""ABS."""

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
    stand_in="SQRT",
    delegate="XNNPACK has no int8 ABS",
)
