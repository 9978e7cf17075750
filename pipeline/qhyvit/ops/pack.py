"""PACK: operands of one shape, stacked along a new axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, OpSpec, Shape, Tied


@dataclass(frozen=True)
class PackAttrs:
    """Attributes of PackOptions."""

    values_count: int = 1
    axis: int = 0


def _forward(inputs: Sequence[Any], attrs: PackAttrs) -> torch.Tensor:
    batch = max(x.shape[0] for x in inputs)
    return torch.stack([x.expand(batch, *x.shape[1:]) for x in inputs], dim=attrs.axis % inputs[0].dim() + 1)


def _shape(shapes: Sequence[Shape], attrs: PackAttrs, constants: Sequence[Any]) -> Shape:
    axis = attrs.axis % (len(shapes[0]) + 1)
    return (*shapes[0][:axis], len(shapes), *shapes[0][axis:])


OP = OpSpec(
    name="PACK",
    options="PackOptions",
    attrs=PackAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(None),
    delegate="XNNPACK has no int8 PACK",
    copies=Copies.SOME,
)
