"""MEAN over constant axes."""

from __future__ import annotations

import torch

from qhyvit.ops.shared.reduce import ReducerAttrs, reduced_shape, reduction, sums_up
from qhyvit.ops.shared.spec import Nonnegative, OpSpec

OP = OpSpec(
    name="MEAN",
    options="ReducerOptions",
    attrs=ReducerAttrs,
    infer_shape=reduced_shape,
    forward=reduction(torch.mean),
    integer=sums_up(mean=True),
    nonnegative=Nonnegative.OF_ALL,
    xnnpack=("Mean",),
)
