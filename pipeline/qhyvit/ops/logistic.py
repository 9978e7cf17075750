"""LOGISTIC: the sigmoid; its int8 output has a prescribed grid.

XNNPACK makes a table of 256 codes in float32, as 1/2 + tanh(x / 2) / 2: below 1/2 the sum is coarser than the sigmoid
itself, and what lies within 1e-5 of a tie is rounded as if it were one. One such code of one tensor made 1 of 16
decisions of a mobilevitv2_050 differ. ``_steps`` repeats the sum; the kernel's tanh is an approximation, so that
of such ties one in a hundred still parts.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.ops._integer import in_float64, looked_up, scale
from qhyvit.ops._spec import Fixed, OpSpec, Quantization
from qhyvit.ops._unary import same_shape, unary

HALF = np.float32(0.5)


def _steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
    """XNNPACK's table: 1/2 + tanh(x / 2) / 2 in float32."""
    half_x = x.astype(np.float32) * scale(read) * HALF
    y = HALF + HALF * in_float64(np.tanh)(half_x)
    return np.rint(y / scale(write)).astype(np.float64)


OP = OpSpec(
    name="LOGISTIC",
    infer_shape=same_shape,
    forward=unary(torch.sigmoid),
    out=Fixed(1 / 256, -128),
    integer=looked_up(_steps),
)
