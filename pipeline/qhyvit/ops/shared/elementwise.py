"""Broadcasting shared by the elementwise ops with two operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops.shared.spec import Forward, FusedActivation, Shape


@dataclass(frozen=True)
class ElementwiseAttrs:
    """Attributes of AddOptions, SubOptions, MulOptions, DivOptions."""

    fused_activation_function: str = FusedActivation.NONE


def align(*operands: torch.Tensor) -> list[torch.Tensor]:
    """Give all operands one rank: the images' dimension stays first, ones go in behind it.

    [B, C] and [B, H, W, C] -> [B, 1, 1, C] and [B, H, W, C].
    """
    rank = max(x.dim() for x in operands)
    return [x.reshape(x.shape[0], *[1] * (rank - x.dim()), *x.shape[1:]) for x in operands]


def binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Forward:
    """Forward of a broadcasting op with two operands."""

    def forward(inputs: Sequence[Any], attrs: Any) -> torch.Tensor:
        a, b = align(inputs[0], inputs[1])
        return function(a, b)

    return forward


def broadcast_shape(shapes: Sequence[Shape], attrs: Any, constants: Sequence[Any]) -> Shape:
    """Shape of the result of a broadcasting op: that of all operands together."""
    return tuple(np.broadcast_shapes(*shapes))
