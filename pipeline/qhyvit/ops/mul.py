"""MUL: elementwise product with broadcasting."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import numpy as np

from qhyvit.ops._elementwise import ElementwiseAttrs, binary, broadcast_shape
from qhyvit.ops._fixed_point import requantized
from qhyvit.ops._spec import OpSpec


def int16_steps(codes: Sequence[np.ndarray], total: np.ndarray, scales: Sequence[float], s_out: float) -> np.ndarray:
    """The product of codes times s_a s_b / s_out, which the kernel computes in float32."""
    a, b = (np.float32(s) for s in scales)
    return requantized(total, float(a * b / np.float32(s_out)))


OP = OpSpec(
    name="MUL",
    options="MulOptions",
    attrs=ElementwiseAttrs,
    infer_shape=broadcast_shape,
    forward=binary(operator.mul),
    accumulates=True,
    int16_steps=int16_steps,
)
