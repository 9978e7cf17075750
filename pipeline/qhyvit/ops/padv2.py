"""PADV2: PAD with a constant value other than 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.pad import padded_shape, with_zeros
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x, pads, value = inputs
    inside = with_zeros(torch.ones_like(x), pads) > 0
    return torch.where(inside, with_zeros(x, pads), value.reshape(-1, *[1] * (x.dim() - 1)))


OP = OpSpec(
    name="PADV2",
    options="PadV2Options",
    infer_shape=padded_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied((0, 2)),
    delegate="XNNPACK has no PADV2",
    copies=Copies.SOME,
)
