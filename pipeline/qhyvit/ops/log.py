"""LOG: the natural logarithm; a table of 256 codes in int8, made in float32, so that ties part from real arithmetic.

What is not positive counts as a millionth: the kernel gives its lowest code there.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.graph.ir import Quantization
from qhyvit.ops._integer import looked_up, scale
from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

LEAST = 1e-6


def _log(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x.clamp_min(LEAST))


def _steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
    """Rounded half away from zero, in float32."""
    y = _log(torch.from_numpy(x * read.scale[0])).numpy().astype(np.float32)
    steps = y * (np.float32(1) / scale(write))
    return np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5))


OP = OpSpec(
    name="LOG",
    infer_shape=same_shape,
    forward=unary(_log),
    integer=looked_up(_steps),
    delegate="XNNPACK has no int8 LOG",
)
