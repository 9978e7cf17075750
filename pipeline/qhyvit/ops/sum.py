"""SUM over constant axes."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.reduce import ReducerAttrs, reduced_shape, reduction, sums_up
from qhyvit.ops.shared.spec import Nonnegative, OpSpec

OP = OpSpec(
    name="SUM",
    options="ReducerOptions",
    attrs=ReducerAttrs,
    infer_shape=reduced_shape,
    forward=reduction(torch.sum),
    integer=sums_up(mean=False),
    nonnegative=Nonnegative.OF_ALL,
    xnnpack=("Sum",),
)
