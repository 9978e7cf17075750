"""Amounts and shapes shared by PAD, PADV2 and MIRROR_PAD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from qhyvit.ops.shared.spec import Shape


def with_zeros(x: torch.Tensor, pads: Any) -> torch.Tensor:
    """``x`` [B, *file shape] with zeros around, as many on each axis as ``pads`` [rank, 2] says."""
    return F.pad(x, [int(v) for pair in pads[::-1] for v in pair])  # torch counts from the last axis


def padded_shape(shapes: Sequence[Shape], attrs: Any, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a padding op."""
    return tuple(s + int(a) + int(b) for s, (a, b) in zip(shapes[0], constants[1], strict=True))
