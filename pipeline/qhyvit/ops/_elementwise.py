"""Broadcasting shared by the elementwise ops with two operands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops._fixed_point import multiplier_of, scaled
from qhyvit.ops._spec import Forward, FusedActivation, Int16Steps, Shape

MULTIPLIER_BITS = 21  # of XNNPACK's sums
INT16_SHIFT = 15  # of the operands of the builtin int16 kernels' sums


@dataclass(frozen=True)
class ElementwiseAttrs:
    """Attributes of AddOptions, SubOptions, MulOptions, DivOptions."""

    fused_activation_function: str = FusedActivation.NONE


def align(*operands: torch.Tensor) -> list[torch.Tensor]:
    """Give all operands one rank: the images' dimension stays first, ones go in behind it.

    [B, C] and [B, H, W, C] -> [B, 1, 1, C] and [B, H, W, C].
    """
    rank = max(x.dim() for x in operands)
    return [x.reshape(x.shape[0], *[1] * (rank - x.dim()), *x.shape[1:]) for x in operands]


def binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Forward:
    """Forward of a broadcasting op with two operands."""

    def forward(inputs: Sequence[Any], attrs: Any) -> torch.Tensor:
        a, b = align(inputs[0], inputs[1])
        return function(a, b)

    return forward


def fixed_point_sum(sign: int) -> Callable[[Any, Any, float, float, float], Any]:
    """``OpSpec.operand_steps`` of XNNPACK's a + b (``sign`` 1) and a - b (-1).

    The larger of s_a / s_out and s_b / s_out becomes a 21-bit integer, the other one is as coarse; the sum of codes
    times these is shifted back and rounded half up.
    """

    def operand_steps(a: np.ndarray, b: np.ndarray, s_a: float, s_b: float, s_out: float) -> np.ndarray:
        ratios = [float(np.float32(s) / np.float32(s_out)) for s in (s_a, s_b)]
        shift = MULTIPLIER_BITS - math.frexp(max(ratios))[1]
        m_a, m_b = (round(math.ldexp(ratio, shift)) for ratio in ratios)
        total = a.astype(np.int64) * m_a + sign * (b.astype(np.int64) * m_b)
        return (total + (1 << (shift - 1))) >> shift

    return operand_steps


def int16_sum(sign: int) -> Int16Steps:
    """``OpSpec.int16_steps`` of a + b (``sign`` 1) and a - b (-1): both on twice the larger scale, 15 bits finer."""

    def int16_steps(codes: Sequence[np.ndarray], _: np.ndarray, scales: Sequence[float], s_out: float) -> np.ndarray:
        twice = 2 * max(scales)
        operands = [x.numpy() << INT16_SHIFT for x in align(*map(torch.from_numpy, codes))]
        a, b = (scaled(x, *multiplier_of(s / twice)) for x, s in zip(operands, scales, strict=True))
        return scaled(a + sign * b, *multiplier_of(twice / ((1 << INT16_SHIFT) * s_out)))

    return int16_steps


def broadcast_shape(shapes: Sequence[Shape], attrs: Any, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a broadcasting op: that of all operands together."""
    return tuple(np.broadcast_shapes(*shapes))
