"""LOG: the natural logarithm; a table of 256 codes in int8, made in float32, so that ties part from real arithmetic.

What is not positive counts as a millionth; the kernel gives its lowest code there.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.integer import half_away, in_float64, looked_up, scale
from qhyvit.ops.shared.spec import OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

LEAST = 1e-6


def _log(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x.clamp_min(LEAST))


def _steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
    """Rounded half away from zero, in float32."""
    y = in_float64(np.log)(np.maximum(x, 1).astype(np.float32) * scale(read)) * (np.float32(1) / scale(write))
    return np.where(x > 0, half_away(y), -np.inf)


OP = OpSpec(
    name="LOG",
    infer_shape=same_shape,
    forward=unary(_log),
    integer=looked_up(_steps),
    delegate="XNNPACK has no int8 LOG",
    after_2_14=True,
)
