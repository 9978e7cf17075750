"""LEAKY_RELU: the int8 kernels differ from rounding in up to 8 % of codes, by 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops._integer import rounds
from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape


@dataclass(frozen=True)
class LeakyReluAttrs:
    """Attributes of LeakyReluOptions."""

    alpha: float = 0.0


def _forward(inputs: Sequence[Any], attrs: LeakyReluAttrs) -> torch.Tensor:
    return F.leaky_relu(inputs[0], attrs.alpha)


OP = OpSpec(
    name="LEAKY_RELU",
    options="LeakyReluOptions",
    attrs=LeakyReluAttrs,
    infer_shape=same_shape,
    forward=_forward,
    integer=rounds(_forward),
)
