"""PRELU: x where it is positive, alpha * x elsewhere; alpha is broadcast, one number a channel as a rule.

The int8 kernel is TFLite's reference code, far slower than XNNPACK's MUL and ADD: ``rewrites/rectifiers.py`` leaves it
where some alpha is above 1.
"""

from __future__ import annotations

import numpy as np
import torch

from qhyvit.ops._elementwise import binary, broadcast_shape
from qhyvit.ops._fixed_point import requantized
from qhyvit.ops._spec import OpSpec


def _prelu(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    return torch.where(x >= 0, x, alpha * x)


def _steps(x: np.ndarray, alpha: np.ndarray, s_x: float, s_alpha: float, s_out: float) -> np.ndarray:
    """``OpSpec.operand_steps``: two multipliers of 31 bits, each result rounded twice."""
    x, alpha = np.broadcast_arrays(x.astype(np.int64), alpha.astype(np.int64))
    scale, out = np.float32(s_x), np.float32(s_out)
    return np.where(
        x >= 0, requantized(x, float(scale / out)), requantized(x * alpha, float(scale * np.float32(s_alpha) / out))
    )


OP = OpSpec(
    name="PRELU",
    infer_shape=broadcast_shape,
    forward=binary(_prelu),
    quantizer=False,
    stand_in="MUL",
    delegate="XNNPACK has no int8 PRELU",
    operand_steps=_steps,
)
