"""GELU: exact (erf) or with the tanh approximation; a table in int8, in which one tie in twenty parts from ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.integer import in_float64, tabulated
from qhyvit.ops.shared.spec import OpSpec
from qhyvit.ops.shared.unary import same_shape


@dataclass(frozen=True)
class GeluAttrs:
    """Attributes of GeluOptions."""

    approximate: bool = False


def _forward(inputs: Sequence[Any], attrs: GeluAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]  # F.gelu computes the last elements of each thread's share in another way
    if attrs.approximate:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * torch.erfc(x * -math.sqrt(0.5))


def _gelu(x: np.ndarray, attrs: GeluAttrs) -> np.ndarray:
    half = np.float32(0.5) * x
    if attrs.approximate:
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return half * (np.float32(1) + in_float64(np.tanh)(inner))
    below = torch.from_numpy((x * -np.float32(math.sqrt(0.5))).astype(np.float64))
    found: np.ndarray = half * torch.special.erfc(below).numpy().astype(np.float32)
    return found


OP = OpSpec(
    name="GELU",
    options="GeluOptions",
    attrs=GeluAttrs,
    infer_shape=same_shape,
    forward=_forward,
    integer=tabulated(_gelu, builtin=True),
    delegate="XNNPACK has no int8 GELU",
    table=True,
    xnnpack=("GELU",),
)
