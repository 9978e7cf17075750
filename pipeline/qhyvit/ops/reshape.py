"""RESHAPE: the new shape is the second, constant input; the leading dimension B stays outside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, OpSpec, Shape, Tied


@dataclass(frozen=True)
class ReshapeAttrs:
    """Attributes of ReshapeOptions; the constant input is what counts."""

    new_shape: tuple[int, ...] = ()


def _target(attrs: ReshapeAttrs, shape_input: Any) -> list[int]:
    return [int(v) for v in (shape_input if shape_input is not None else attrs.new_shape)]


def _forward(inputs: Sequence[Any], attrs: ReshapeAttrs) -> torch.Tensor:
    target = _target(attrs, inputs[1] if len(inputs) > 1 else None)
    x: torch.Tensor = inputs[0]
    return x.reshape(x.shape[0], *target)


def _shape(shapes: Sequence[Shape], attrs: ReshapeAttrs, constants: Sequence[Any]) -> Shape:
    target = _target(attrs, constants[1] if len(constants) > 1 else None)
    return tuple(torch.empty(shapes[0], device="meta").reshape(target).shape)


OP = OpSpec(
    name="RESHAPE",
    options="ReshapeOptions",
    attrs=ReshapeAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    copies=Copies.ONCE,
    xnnpack=("Static Reshape",),
)
