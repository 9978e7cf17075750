"""STRIDED_SLICE with constant begin, end and strides, and begin, end and shrink masks.

XNNPACK takes it with strides of 1 and without shrink mask only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qhyvit.errors import GraphError
from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, OpSpec, Shape, Tied


@dataclass(frozen=True)
class StridedSliceAttrs:
    """Attributes of StridedSliceOptions; bit i of a mask belongs to axis i."""

    begin_mask: int = 0
    end_mask: int = 0
    ellipsis_mask: int = 0
    new_axis_mask: int = 0
    shrink_axis_mask: int = 0
    offset: bool = False

    def __post_init__(self) -> None:
        if self.ellipsis_mask or self.new_axis_mask or self.offset:
            raise GraphError(
                "STRIDED_SLICE: ellipsis_mask, new_axis_mask and offset are not supported, got "
                f"{self.ellipsis_mask}, {self.new_axis_mask}, {self.offset}; write the slice axis by axis"
            )


def _picks(shape: Sequence[int], attrs: StridedSliceAttrs, constants: Sequence[Any]) -> list[int | range]:
    """For each axis the indices that stay, or the one index that makes the axis vanish."""
    picks: list[int | range] = []
    for i, size in enumerate(shape):
        if i >= len(constants[1]):  # trailing axes may be left out
            picks.append(range(size))
            continue
        begin, end, stride = (int(constants[k][i]) for k in (1, 2, 3))
        bit = 1 << i
        if attrs.shrink_axis_mask & bit:
            picks.append(range(size)[0 if attrs.begin_mask & bit else begin])
            continue
        where = slice(None if attrs.begin_mask & bit else begin, None if attrs.end_mask & bit else end, stride)
        picks.append(range(size)[where])
    return picks


def _forward(inputs: Sequence[Any], attrs: StridedSliceAttrs) -> torch.Tensor:
    x: torch.Tensor = inputs[0]
    picks = _picks(x.shape[1:], attrs, inputs)
    for axis in reversed(range(len(picks))):  # from the last, so that vanishing axes move no other
        pick = picks[axis]
        if isinstance(pick, int):
            x = x.select(axis + 1, pick)
        elif pick != range(x.shape[axis + 1]):
            x = x.index_select(axis + 1, torch.tensor(list(pick), device=x.device))
    return x


def _shape(shapes: Sequence[Shape], attrs: StridedSliceAttrs, constants: Sequence[Any]) -> Shape:
    return tuple(len(p) for p in _picks(shapes[0], attrs, constants) if isinstance(p, range))


OP = OpSpec(
    name="STRIDED_SLICE",
    options="StridedSliceOptions",
    attrs=StridedSliceAttrs,
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    copies=Copies.SOME,
    xnnpack=("Slice",),
)
