"""SQUEEZE: axes of size 1 vanish (all of them where none is named)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, OpSpec, Shape, Tied


@dataclass(frozen=True)
class SqueezeAttrs:
    """Attributes of SqueezeOptions."""

    squeeze_dims: tuple[int, ...] = ()


def _squeezed(shape: Sequence[int], attrs: SqueezeAttrs) -> Shape:
    gone = {d % len(shape) for d in attrs.squeeze_dims} or {i for i, s in enumerate(shape) if s == 1}
    return tuple(s for i, s in enumerate(shape) if i not in gone)


def _forward(inputs: Sequence[Any], attrs: SqueezeAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    return x.reshape(x.shape[0], *_squeezed(x.shape[1:], attrs))


def _shape(shapes: Sequence[Shape], attrs: SqueezeAttrs, constants: Sequence[Any]) -> Shape:
    return _squeezed(shapes[0], attrs)


OP = OpSpec(
    name="SQUEEZE",
    options="SqueezeOptions",
    attrs=SqueezeAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no int8 SQUEEZE: write it as RESHAPE",
    copies=Copies.ONCE,
    xnnpack=("Static Reshape",),
)
