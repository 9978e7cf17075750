"""SOFTMAX over the last axis; its int8 output has a prescribed grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops._spec import Fixed, OpSpec
from qhyvit.ops._unary import same_shape


@dataclass(frozen=True)
class SoftmaxAttrs:
    """Attributes of SoftmaxOptions."""

    beta: float = 1.0


def _forward(inputs: Sequence[Any], attrs: SoftmaxAttrs) -> torch.Tensor:
    return torch.softmax(inputs[0] * attrs.beta, dim=-1)


OP = OpSpec(
    name="SOFTMAX",
    options="SoftmaxOptions",
    attrs=SoftmaxAttrs,
    infer_shape=same_shape,
    forward=_forward,
    out=Fixed(1 / 256, -128),
    delegate="XNNPACK has no int8 SOFTMAX",
)
