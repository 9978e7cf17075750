"""ABS."""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.fixed_point import requantized
from qhyvit.ops.shared.integer import looked_up, ratio
from qhyvit.ops.shared.spec import Nonnegative, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary

_forward = unary(torch.abs)


def _steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
    """The absolute values on the output's grid, by a 31-bit multiplier."""
    return requantized(np.abs(x), float(ratio(read, write)))


OP = OpSpec(
    name="ABS",
    options="AbsOptions",
    infer_shape=same_shape,
    forward=_forward,
    integer=looked_up(_steps),
    delegate="XNNPACK has no int8 ABS",
    nonnegative=Nonnegative.ALWAYS,
    homogeneous=True,
    xnnpack=("Absolute Value",),
)
