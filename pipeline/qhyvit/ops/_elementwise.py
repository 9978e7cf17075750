"""Broadcasting shared by the binary elementwise ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qhyvit.ops._spec import FusedActivation


@dataclass(frozen=True)
class ElementwiseAttrs:
    """Attributes of AddOptions, SubOptions, MulOptions, DivOptions."""

    fused_activation_function: str = FusedActivation.NONE


def align(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give both operands one rank: the images' dimension stays first, ones go in behind it.

    [B, C] and [B, H, W, C] -> [B, 1, 1, C] and [B, H, W, C].
    """
    rank = max(a.dim(), b.dim())

    def widen(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], *[1] * (rank - x.dim()), *x.shape[1:])

    return widen(a), widen(b)


def broadcast_shape(shapes: Sequence[tuple[int, ...]], attrs: Any, constants: Sequence[Any]) -> tuple[int, ...]:
    """Shape of the result of a broadcasting binary op."""
    return tuple(np.broadcast_shapes(shapes[0], shapes[1]))
