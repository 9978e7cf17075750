"""SQRT: the int8 kernel computes in float32 and truncates instead of rounding.

Codes below the zero point are an error.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.integer import looked_up, scale
from qhyvit.ops.shared.spec import Nonnegative, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

LEAST = 1e-20  # sqrt has no finite gradient at 0


def _forward(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > LEAST, torch.sqrt(x.clamp_min(LEAST)), torch.zeros_like(x))


def _steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
    found: np.ndarray = np.trunc(np.sqrt(np.maximum(x, 0).astype(np.float32) * scale(read)) / scale(write))
    return found


OP = OpSpec(
    name="SQRT",
    infer_shape=same_shape,
    forward=unary(_forward),
    delegate="XNNPACK has no int8 SQRT",
    after_2_14=True,
    integer=looked_up(_steps),
    nonnegative=Nonnegative.ALWAYS,
    table=True,
    xnnpack=("Square Root",),
)
