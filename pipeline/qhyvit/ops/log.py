"""LOG: the natural logarithm; a table of 256 codes in int8, made in float32, so that ties part from real arithmetic.

What is not positive counts as a millionth: the kernel gives its lowest code there.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

LEAST = 1e-6


def _log(x: torch.Tensor) -> torch.Tensor:
    return torch.log(x.clamp_min(LEAST))


def kernel_steps(y: np.ndarray, in_scale: float, out_scale: float) -> np.ndarray:
    """Steps of the output's scale that the int8 kernel gives where the real result is ``y`` (any shape, float64)."""
    steps = y.astype(np.float32) * (np.float32(1) / np.float32(out_scale))
    return (np.sign(steps) * np.floor(np.abs(steps) + np.float32(0.5))).astype(np.float64)


OP = OpSpec(
    name="LOG",
    infer_shape=same_shape,
    forward=unary(_log),
    quantizer=False,
    stand_in="SQRT",
    kernel_steps=kernel_steps,
    delegate="XNNPACK has no int8 LOG",
)
