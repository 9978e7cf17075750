"""SLICE: a block of the operand, by constant begin and size. XNNPACK refuses size -1 ("to the end")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Shape, Tied


def _sizes(shape: Sequence[int], begin: Any, size: Any) -> Shape:
    """Size of each axis; -1 stands for "to the end"."""
    return tuple(n - int(b) if s == -1 else int(s) for n, b, s in zip(shape, begin, size, strict=True))


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    begin, size = inputs[1:]
    sizes = _sizes(x.shape[1:], begin, size)
    return x[(slice(None), *(slice(int(b), int(b) + s) for b, s in zip(begin, sizes, strict=True)))]


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    return _sizes(shapes[0], constants[1], constants[2])


OP = OpSpec(
    name="SLICE",
    options="SliceOptions",
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    copies=Copies.SOME,
    xnnpack=("Slice",),
)
