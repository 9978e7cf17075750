"""LEAKY_RELU: x above zero, alpha * x below.

XNNPACK has 8 fraction bits for each of the two factors, and so much coarser ones than any other kernel: up to 8 % of
the codes are not the rounded real result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from qhyvit.graph.ir import Quantization
from qhyvit.ops.shared.fixed_point import by_fraction_bits, requantized
from qhyvit.ops.shared.integer import looked_up, ratio, scale
from qhyvit.ops.shared.spec import Codes, Kernel, OpSpec, Quants
from qhyvit.ops.shared.unary import same_shape

LEAST, MOST = 2**-8, 2**7  # factors that XNNPACK takes


@dataclass(frozen=True)
class LeakyReluAttrs:
    """Attributes of LeakyReluOptions."""

    alpha: float = 0.0


def _forward(inputs: Sequence[Any], attrs: LeakyReluAttrs) -> torch.Tensor:
    return F.leaky_relu(inputs[0], attrs.alpha)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: LeakyReluAttrs, kernel: Kernel) -> list[np.ndarray]:
    """XNNPACK, where it takes both factors; else the builtin kernel's 31-bit multipliers."""

    def steps(x: np.ndarray, read: Quantization, write: Quantization) -> np.ndarray:
        above, alpha = ratio(read, write), np.float32(attrs.alpha)
        below = above * alpha
        taken = LEAST <= above <= MOST and abs(below) >= LEAST and -MOST < below <= MOST
        if taken and not kernel.is_reference:
            return np.where(x > 0, by_fraction_bits(x, above, 8), by_fraction_bits(x, below, 8))
        below = scale(read) * alpha / scale(write)
        return np.where(x > 0, requantized(x, float(above)), requantized(x, float(below)))

    return list(looked_up(steps)(codes, quants, attrs, kernel))


OP = OpSpec(
    name="LEAKY_RELU",
    options="LeakyReluOptions",
    attrs=LeakyReluAttrs,
    infer_shape=same_shape,
    forward=_forward,
    integer=_integer,
    homogeneous=True,
    xnnpack=("Leaky ReLU",),
)
