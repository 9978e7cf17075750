"""PADV2: PAD with a constant value other than 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops._spec import NoAttrs, OpSpec, Shape, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    flat = [int(v) for pair in inputs[1][::-1] for v in pair]  # torch counts from the last axis
    inside = F.pad(torch.ones_like(inputs[0]), flat) > 0
    return torch.where(inside, F.pad(inputs[0], flat), inputs[2].reshape(-1, *[1] * (inputs[0].dim() - 1)))


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    return tuple(s + int(a) + int(b) for s, (a, b) in zip(shapes[0], constants[1], strict=True))


OP = OpSpec(
    name="PADV2",
    options="PadV2Options",
    infer_shape=_shape,
    forward=_forward,
    out=Tied((0, 2)),
    delegate="XNNPACK has no PADV2",
)
