"""MAX_POOL_2D: SAME never picks the padding. XNNPACK refuses windows of one pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops.shared.conv import to_nhwc
from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.pool import PoolAttrs, padded, pooled_shape
from qhyvit.ops.shared.spec import OpSpec, Tied


def _forward(inputs: Sequence[Any], attrs: PoolAttrs) -> torch.Tensor:
    x = inputs[0]
    return to_nhwc(F.max_pool2d(padded(x, attrs, float("-inf")), attrs.kernel, attrs.stride), x.shape[0])


OP = OpSpec(
    name="MAX_POOL_2D",
    options="Pool2DOptions",
    attrs=PoolAttrs,
    infer_shape=pooled_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    local=True,
    xnnpack=("Max Pooling",),
)
