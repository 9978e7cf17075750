"""SUM over constant axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qhyvit.ops._reduce import ReducerAttrs, reduced_shape, reduction, sum_codes
from qhyvit.ops._spec import OpSpec


def int16_steps(codes: Sequence[np.ndarray], total: np.ndarray, scales: Sequence[float], s_out: float) -> np.ndarray:
    """The sum of codes times s_in / s_out in float32, rounded half away from zero."""
    steps = (total.astype(np.float32) * (np.float32(scales[0]) / np.float32(s_out))).astype(np.float64)
    return np.trunc(steps + np.copysign(0.5, steps)).astype(np.int64)


OP = OpSpec(
    name="SUM",
    options="ReducerOptions",
    attrs=ReducerAttrs,
    infer_shape=reduced_shape,
    forward=reduction(torch.sum),
    sum_codes=sum_codes(mean=False),
    int16_steps=int16_steps,
)
