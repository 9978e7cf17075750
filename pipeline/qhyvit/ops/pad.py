"""PAD with zeros by constant amounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.pad import padded_shape, with_zeros
from qhyvit.ops.shared.spec import NoAttrs, OpSpec, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    return with_zeros(inputs[0], inputs[1])


OP = OpSpec(
    name="PAD",
    options="PadOptions",
    infer_shape=padded_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    xnnpack=("Constant Pad",),
)
