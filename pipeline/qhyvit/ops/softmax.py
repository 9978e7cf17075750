"""SOFTMAX over the last axis; its int8 output has a prescribed grid, and so has its int16 output.

The kernel works in float32: a table of exponentials, their sum from first to last, one reciprocal. ``kernel_steps``
repeats it, or near ties a code in a million would differ, and every value behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops._spec import Fixed, OpSpec
from qhyvit.ops._unary import same_shape


@dataclass(frozen=True)
class SoftmaxAttrs:
    """Attributes of SoftmaxOptions."""

    beta: float = 1.0


def _forward(inputs: Sequence[Any], attrs: SoftmaxAttrs) -> torch.Tensor:
    return torch.softmax(inputs[0] * attrs.beta, dim=-1)


def kernel_steps(y: np.ndarray, in_scale: float, out_scale: float) -> np.ndarray:
    """Steps of the output's scale that the kernel gives where the real result is ``y`` [..., N], float64.

    The codes below the row's highest follow from ``y`` itself: ln(y / max) / in_scale.
    """
    scale = np.float32(in_scale)
    with np.errstate(divide="ignore"):
        below = np.log(y / y.max(axis=-1, keepdims=True)) / float(scale)
    below = np.rint(np.maximum(below, -255.0)).astype(np.float32)
    table = np.exp((below * scale).astype(np.float64)).astype(np.float32)
    total = np.add.accumulate(table, axis=-1, dtype=np.float32)[..., -1:]
    inverse = np.float32(1.0) / (total * np.float32(out_scale))
    return np.floor((table * inverse).astype(np.float64) + 0.5)


OP = OpSpec(
    name="SOFTMAX",
    options="SoftmaxOptions",
    attrs=SoftmaxAttrs,
    infer_shape=same_shape,
    forward=_forward,
    out=Fixed(1 / 256, -128),
    wide=Fixed(1 / 65536, -32768),
    delegate="XNNPACK has no int8 SOFTMAX",
    kernel_steps=kernel_steps,
)
