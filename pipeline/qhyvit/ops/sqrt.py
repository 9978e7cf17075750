"""SQRT: the int8 kernel truncates instead of rounding."""

from __future__ import annotations

import torch

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

OP = OpSpec(
    name="SQRT",
    infer_shape=same_shape,
    forward=unary(torch.sqrt),
    delegate="XNNPACK has no int8 SQRT",
    since_runtime="2.17.0",
    rounding="truncate",
)
