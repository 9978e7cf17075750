"""HARD_SWISH: x * relu6(x + 3) / 6; ADD with fused RELU6 and two MUL are much faster in int8."""

from __future__ import annotations

import torch.nn.functional as F

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

OP = OpSpec(
    name="HARD_SWISH",
    options="HardSwishOptions",
    infer_shape=same_shape,
    forward=unary(F.hardswish),
    delegate="XNNPACK has no int8 HARD_SWISH: rewrite it as ADD with RELU6, MUL, MUL",
)
