"""LOGISTIC: the sigmoid; its int8 output has a prescribed grid.

XNNPACK makes a table of 256 codes in float32, as 1/2 + tanh(x / 2) / 2: below 1/2 the sum is coarser than the sigmoid
itself, and what lies within 1e-5 of a tie is rounded as if it were one. One such code of one tensor made 1 of 16
decisions of a mobilevitv2_050 differ. ``kernel_steps`` repeats the sum; the kernel's tanh is an approximation, so that
of such ties one in a hundred still parts.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.ops._spec import Fixed, OpSpec
from qhyvit.ops._unary import same_shape, unary

HALF = np.float32(0.5)
FLAT = 1e-15  # nearer to 0 or 1 the operand cannot be told from the result, and need not be


def kernel_steps(y: np.ndarray, in_scale: float, out_scale: float) -> np.ndarray:
    """Steps of the output's scale that the int8 kernel gives where the real result is ``y`` (any shape, float64)."""
    inside = np.clip(y, FLAT, 1 - FLAT)
    steps = np.rint(np.log(inside / (1 - inside)) / in_scale)
    half_x = steps.astype(np.float32) * np.float32(in_scale) * HALF
    found = HALF + HALF * np.tanh(half_x.astype(np.float64)).astype(np.float32)
    return np.rint(found / np.float32(out_scale)).astype(np.float64)


OP = OpSpec(
    name="LOGISTIC",
    infer_shape=same_shape,
    forward=unary(torch.sigmoid),
    out=Fixed(1 / 256, -128),
    kernel_steps=kernel_steps,
)
