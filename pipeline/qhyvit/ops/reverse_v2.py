"""REVERSE_V2: the order along constant axes turned round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Tied
from qhyvit.ops.shared.unary import same_shape


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    return torch.flip(inputs[0], [a + 1 for a in axes_of(inputs[1], inputs[0].dim() - 1)])


OP = OpSpec(
    name="REVERSE_V2",
    options="ReverseV2Options",
    infer_shape=same_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no REVERSE_V2",
    copies=Copies.ONCE,
)
