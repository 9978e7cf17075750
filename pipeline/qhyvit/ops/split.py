"""SPLIT into equal parts; the constant axis is the FIRST input. Several outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, OpSpec, Shape, Tied


@dataclass(frozen=True)
class SplitAttrs:
    """Attributes of SplitOptions."""

    num_splits: int = 1


def _axis(axis_input: Any, rank: int) -> int:
    return int(np.asarray(axis_input).item()) % rank


def _forward(inputs: Sequence[Any], attrs: SplitAttrs) -> tuple[torch.Tensor, ...]:
    x: torch.Tensor = inputs[1]
    axis = _axis(inputs[0], x.dim() - 1) + 1
    return torch.split(x, x.shape[axis] // attrs.num_splits, dim=axis)


def _shape(shapes: Sequence[Shape], attrs: SplitAttrs, constants: Sequence[Any]) -> tuple[Shape, ...]:
    axis = _axis(constants[0], len(shapes[1]))
    part = tuple(s // attrs.num_splits if i == axis else s for i, s in enumerate(shapes[1]))
    return (part,) * attrs.num_splits


OP = OpSpec(
    name="SPLIT",
    options="SplitOptions",
    attrs=SplitAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied((1,)),
    copies=Copies.SOME,
)
