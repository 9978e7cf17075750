"""CONCATENATION: all operands and the result share one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, FusedActivation, OpSpec, Shape, Tied


@dataclass(frozen=True)
class ConcatenationAttrs:
    """Attributes of ConcatenationOptions."""

    axis: int = 0
    fused_activation_function: str = FusedActivation.NONE


def _forward(inputs: Sequence[Any], attrs: ConcatenationAttrs) -> torch.Tensor:
    rank = inputs[0].dim() - 1
    batch = max(x.shape[0] for x in inputs)
    return torch.cat([x.expand(batch, *x.shape[1:]) for x in inputs], dim=attrs.axis % rank + 1)


def _shape(shapes: Sequence[Shape], attrs: ConcatenationAttrs, constants: Sequence[Any]) -> Shape:
    axis = attrs.axis % len(shapes[0])
    return tuple(sum(s[i] for s in shapes) if i == axis else n for i, n in enumerate(shapes[0]))


OP = OpSpec(
    name="CONCATENATION",
    options="ConcatenationOptions",
    attrs=ConcatenationAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(None),
    copies=Copies.SOME,
    xnnpack=("Copy",),
)
