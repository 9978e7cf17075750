"""PRELU: x where it is positive, alpha * x elsewhere; alpha is broadcast, one number a channel as a rule.

The int8 kernel is TFLite's reference code, far slower than XNNPACK's MUL and ADD: ``passes/rectifiers.py`` leaves it
where some alpha is above 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from qhyvit.ops.shared.elementwise import binary, broadcast_shape
from qhyvit.ops.shared.fixed_point import requantized
from qhyvit.ops.shared.integer import aligned, ratio, saturated, scale
from qhyvit.ops.shared.spec import Codes, Kernel, NoAttrs, OpSpec, Quants


def _prelu(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, x, alpha * x)


def _integer(codes: Sequence[Codes], quants: Quants, attrs: NoAttrs, kernel: Kernel) -> list[np.ndarray]:
    """Two multipliers of 31 bits, each result rounded twice."""
    (read, slope), (write,) = quants.reads, quants.writes
    assert read is not None
    assert slope is not None
    x, alpha = np.broadcast_arrays(*aligned(codes, quants))
    above = requantized(x, float(ratio(read, write)))
    below = requantized(x * alpha, float(scale(read) * scale(slope) / scale(write)))
    return [saturated(np.where(x >= 0, above, below) + write.zero_point, write)]


OP = OpSpec(
    name="PRELU",
    infer_shape=broadcast_shape,
    forward=binary(_prelu),
    delegate="XNNPACK has no int8 PRELU",
    integer=_integer,
    xnnpack=("PReLU",),
)
