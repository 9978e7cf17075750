"""AVERAGE_POOL_2D: SAME leaves the padding out of the mean, as ``count_include_pad=False`` does in torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from qhyvit.ops.shared.conv import to_nhwc
from qhyvit.ops.shared.integer import half_away, saturated
from qhyvit.ops.shared.pool import PoolAttrs, padded, pooled_shape
from qhyvit.ops.shared.spec import Codes, Kernel, OpSpec, Quants, Tied


def _window_sum(x: torch.Tensor, attrs: PoolAttrs) -> torch.Tensor:
    return F.avg_pool2d(padded(x, attrs, 0.0), attrs.kernel, attrs.stride, divisor_override=1)


def _forward(inputs: Sequence[Any], attrs: PoolAttrs) -> torch.Tensor:
    x = inputs[0]
    count = _window_sum(torch.ones_like(x[:1, :1, ..., :1]), attrs)
    return to_nhwc(_window_sum(x, attrs) / count, x.shape[0])


def _integer(codes: Sequence[Codes], quants: Quants, attrs: PoolAttrs, kernel: Kernel) -> list[np.ndarray]:
    """The mean of the codes, zero point included, rounded half away from zero."""
    assert codes[0] is not None
    mean = _forward([torch.from_numpy(codes[0].astype(np.float64))], attrs).numpy()
    return [saturated(half_away(mean), quants.writes[0], attrs, Kernel.REFERENCE)]


OP = OpSpec(
    name="AVERAGE_POOL_2D",
    options="Pool2DOptions",
    attrs=PoolAttrs,
    infer_shape=pooled_shape,
    forward=_forward,
    out=Tied(rounds=True),
    delegate="XNNPACK has no int8 AVERAGE_POOL_2D: write it as a depthwise convolution",
    integer=_integer,
    local=True,
    xnnpack=("Average Pooling",),
)
