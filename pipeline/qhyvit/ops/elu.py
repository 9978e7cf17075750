"""ELU: x above zero, exp(x) - 1 below. In int8 a table of 256 codes: the cheapest exponential that XNNPACK has.

The reference kernels lack the op. Of ties one in a hundred parts, as the C library's exp is off by a last bit.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.ops.shared.integer import in_float64, tabulated
from qhyvit.ops.shared.spec import Kernel, NoAttrs, OpSpec
from qhyvit.ops.shared.unary import same_shape, unary


def _forward(x: torch.Tensor) -> torch.Tensor:
    # F.elu computes the last elements of each thread's share in another way
    return torch.where(x > 0, x, torch.expm1(x.clamp_max(0.0)))


def _elu(x: np.ndarray, attrs: NoAttrs) -> np.ndarray:
    return np.where(x >= 0, x, in_float64(np.expm1)(np.minimum(x, 0)))


OP = OpSpec(
    name="ELU",
    infer_shape=same_shape,
    forward=unary(_forward),
    integer=tabulated(_elu),
    lacking=(Kernel.REFERENCE,),
    floor=-1.0,
)
