"""RSQRT: 1 / sqrt(x). The int8 kernel takes no value below its input's lowest code."""

from __future__ import annotations

import torch

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

# A square that rounds to code 0 is 0: the kernel then gives its highest code. Here it must stay finite, or its
# gradient (0 outside the range, times infinity) would be NaN in everything before it.
LEAST = 1e-20


def _forward(x: torch.Tensor) -> torch.Tensor:
    return torch.rsqrt(x.clamp_min(LEAST))


OP = OpSpec(
    name="RSQRT",
    infer_shape=same_shape,
    forward=unary(_forward),
    input_zero_point=-128,
    delegate="XNNPACK has no int8 RSQRT",
)
