"""MIRROR_PAD by constant amounts: the values beside an edge mirrored at it, with the edge (SYMMETRIC) or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.pad import padded_shape
from qhyvit.ops.shared.spec import Copies, OpSpec, Tied


@dataclass(frozen=True)
class MirrorPadAttrs:
    """Attributes of MirrorPadOptions."""

    mode: str = "REFLECT"


def _forward(inputs: Sequence[Any], attrs: MirrorPadAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    edge = 0 if attrs.mode == "SYMMETRIC" else 1
    for axis, (before, behind) in enumerate(inputs[1].tolist(), start=1):
        size = x.shape[axis]
        order = [*range(edge + before - 1, edge - 1, -1), *range(size),
                 *range(size - 1 - edge, size - 1 - edge - behind, -1)]  # fmt: skip
        x = x.index_select(axis, torch.tensor(order, device=x.device))
    return x


OP = OpSpec(
    name="MIRROR_PAD",
    options="MirrorPadOptions",
    attrs=MirrorPadAttrs,
    infer_shape=padded_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no int8 MIRROR_PAD",
    copies=Copies.REPEATED,
)
