"""SQUARED_DIFFERENCE: (a - b) ** 2 with broadcasting; SUB and MUL are much faster in int8."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qhyvit.ops.shared.elementwise import binary, broadcast_shape
from qhyvit.ops.shared.fixed_point import requantized
from qhyvit.ops.shared.integer import aligned, saturated
from qhyvit.ops.shared.spec import Codes, Kernel, NoAttrs, Nonnegative, OpSpec, Quants

FINER = 7  # bits by which the kernel's difference is finer than its operands


def _squared_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).square()


def _integer(codes: Sequence[Codes], quants: Quants, attrs: NoAttrs, kernel: Kernel) -> list[np.ndarray]:
    """The difference on twice the larger scale, 7 bits finer, and its square, all by 31-bit multipliers."""
    (write,), scales = quants.writes, [q.scale[0] for q in quants.reads if q is not None]
    twice = 2 * max(scales)
    first, second = (requantized(x << FINER, s / twice) for x, s in zip(aligned(codes, quants), scales, strict=True))
    steps = requantized((first - second) ** 2, twice * twice / ((1 << 2 * FINER) * write.scale[0]))
    return [saturated(steps + write.zero_point, write)]


_forward = binary(_squared_difference)

OP = OpSpec(
    name="SQUARED_DIFFERENCE",
    options="SquaredDifferenceOptions",
    infer_shape=broadcast_shape,
    forward=_forward,
    integer=_integer,
    delegate="XNNPACK has no int8 SQUARED_DIFFERENCE: rewrite it as SUB and MUL",
    nonnegative=Nonnegative.ALWAYS,
    xnnpack=("Squared Difference",),
)
