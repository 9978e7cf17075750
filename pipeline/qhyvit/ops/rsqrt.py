"""RSQRT: 1 / sqrt(x). The int8 kernel takes no value below its input's lowest code."""

from __future__ import annotations

import torch

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

OP = OpSpec(
    name="RSQRT",
    infer_shape=same_shape,
    forward=unary(torch.rsqrt),
    input_zero_point=-128,
    delegate="XNNPACK has no int8 RSQRT",
)
