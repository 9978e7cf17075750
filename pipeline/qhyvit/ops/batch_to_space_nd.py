"""BATCH_TO_SPACE_ND: groups of images become the pixels of blocks; NHWC, block sizes and crops constant.

Taken apart before calibration (passes/batches_as_copies.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qhyvit.ops.shared.integer import moves
from qhyvit.ops.shared.spec import Copies, NoAttrs, OpSpec, Shape, Tied


def _forward(inputs: Sequence[Any], attrs: NoAttrs) -> torch.Tensor:
    x, (high, wide), ((top, bottom), (left, right)) = inputs
    images, many, rows, columns, channels = x.shape
    batch = many // int(high * wide)
    split = x.reshape(images, high, wide, batch, rows, columns, channels).permute(0, 3, 4, 1, 5, 2, 6)
    height, width = int(rows * high), int(columns * wide)
    whole: torch.Tensor = split.reshape(images, batch, height, width, channels)
    return whole[:, :, int(top) : height - int(bottom), int(left) : width - int(right)]


def _shape(shapes: Sequence[Shape], attrs: NoAttrs, constants: Sequence[Any]) -> Shape:
    many, rows, columns, channels = shapes[0]
    (high, wide), (down, across) = constants[1:]
    height, width = rows * high - sum(map(int, down)), columns * wide - sum(map(int, across))
    return (int(many // (high * wide)), int(height), int(width), channels)


OP = OpSpec(
    name="BATCH_TO_SPACE_ND",
    options="BatchToSpaceNDOptions",
    infer_shape=_shape,
    forward=_forward,
    integer=moves(_forward),
    out=Tied(),
    delegate="XNNPACK has no BATCH_TO_SPACE_ND",
    copies=Copies.SOME,
)
