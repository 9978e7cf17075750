"""RSQRT: 1 / sqrt(x). The int8 kernel takes no value below its input's lowest code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops._spec import NoAttrs, OpSpec
from qhyvit.ops._unary import same_shape


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    return torch.rsqrt(inputs[0])


OP = OpSpec(
    name="RSQRT",
    infer_shape=same_shape,
    forward=_forward,
    input_zero_point=-128,
    delegate="XNNPACK has no int8 RSQRT",
)
