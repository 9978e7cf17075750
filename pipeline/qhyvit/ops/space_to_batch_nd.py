"""SPACE_TO_BATCH_ND: pixels of every block go to images of their own; NHWC, block sizes and paddings constant.

Taken apart before calibration (passes/batches_as_copies.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import NoAttrs, OpSpec, Shape, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x, (high, wide), (down, across) = inputs
    x = F.pad(x, [0, 0, *map(int, across), *map(int, down)])
    images, batch, height, width, channels = x.shape
    split = x.reshape(images, batch, height // high, high, width // wide, wide, channels)
    rows, columns = height // high, width // wide
    return split.permute(0, 3, 5, 1, 2, 4, 6).reshape(images, high * wide * batch, rows, columns, channels)


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    batch, height, width, channels = shapes[0]
    (high, wide), (down, across) = constants[1:]
    rows, columns = (height + sum(map(int, down))) // high, (width + sum(map(int, across))) // wide
    return (int(batch * high * wide), int(rows), int(columns), channels)


OP = OpSpec(
    name="SPACE_TO_BATCH_ND",
    options="SpaceToBatchNDOptions",
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no SPACE_TO_BATCH_ND",
)
