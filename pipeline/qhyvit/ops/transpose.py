"""TRANSPOSE by a constant permutation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Shape, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    return x.permute(0, *(int(p) + 1 for p in inputs[1]))


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    return tuple(shapes[0][int(p)] for p in constants[1])


OP = OpSpec(
    name="TRANSPOSE",
    options="TransposeOptions",
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    copies=Copies.ONCE,
    xnnpack=("Transpose",),
)
