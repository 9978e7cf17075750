"""UNPACK along one axis, which vanishes. Several outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, OpSpec, Shape, Tied


@dataclass(frozen=True)
class UnpackAttrs:
    """Attributes of UnpackOptions."""

    num: int = 1
    axis: int = 0


def _forward(inputs: Sequence[Any], attrs: UnpackAttrs) -> tuple[torch.Tensor, ...]:
    x: torch.Tensor = inputs[0]
    return x.unbind(attrs.axis % (x.dim() - 1) + 1)


def _shape(shapes: Sequence[Shape], attrs: UnpackAttrs, constants: Sequence[Any]) -> tuple[Shape, ...]:
    axis = attrs.axis % len(shapes[0])
    return ((*shapes[0][:axis], *shapes[0][axis + 1 :]),) * attrs.num


OP = OpSpec(
    name="UNPACK",
    options="UnpackOptions",
    attrs=UnpackAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no int8 UNPACK",
    copies=Copies.SOME,
)
