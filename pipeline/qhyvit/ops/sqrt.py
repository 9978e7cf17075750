"""SQRT: the int8 kernel truncates instead of rounding."""

from __future__ import annotations

import torch

from qhyvit.ops._integer import rounds, truncate
from qhyvit.ops._spec import OpSpec
from qhyvit.ops._unary import same_shape, unary

LEAST = 1e-20  # sqrt has no finite gradient at 0


def _forward(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > LEAST, torch.sqrt(x.clamp_min(LEAST)), torch.zeros_like(x))


OP = OpSpec(
    name="SQRT",
    infer_shape=same_shape,
    forward=unary(_forward),
    delegate="XNNPACK has no int8 SQRT",
    since_runtime="2.17.0",
    integer=rounds(unary(_forward), truncate),
)
