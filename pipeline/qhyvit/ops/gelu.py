"""GELU: exact (erf) or with the tanh approximation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops._integer import tabulated
from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape


@dataclass(frozen=True)
class GeluAttrs:
    """Attributes of GeluOptions."""

    approximate: bool = False


def _forward(inputs: Sequence[Any], attrs: GeluAttrs) -> torch.Tensor:
    return F.gelu(inputs[0], approximate="tanh" if attrs.approximate else "none")


OP = OpSpec(
    name="GELU",
    options="GeluOptions",
    attrs=GeluAttrs,
    infer_shape=same_shape,
    forward=_forward,
    integer=tabulated(_forward),
    delegate="XNNPACK has no int8 GELU",
)
