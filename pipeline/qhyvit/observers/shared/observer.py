"""What an observer is: it sees batches of one tensor and answers with a range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

Range = tuple[np.ndarray, np.ndarray]


class Observed(Protocol):
    """Running state of one observed tensor."""

    def update(self, x: torch.Tensor) -> None:
        """See one batch, [B, *file shape]."""

    def range(self) -> Range:
        """(lo, hi): 0-d arrays per layer, [C] per channel; float64."""


@dataclass(frozen=True)
class Observer:
    """``new(axis)`` starts a state; ``axis`` (counted in [B, *file shape]) asks for one range a channel."""

    name: str
    summary: str
    new: Callable[[int | None], Observed]


def rows(x: torch.Tensor, axis: int | None) -> torch.Tensor:
    """[channels, values], or [1, values] without an axis."""
    x = x.detach()
    return x.reshape(1, -1) if axis is None else x.movedim(axis, 0).reshape(x.shape[axis], -1)


def ends(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest values along ``dim``; torch's own aminmax takes five times as long there."""
    return x.amin(dim), x.amax(dim)


def squeeze(values: torch.Tensor, axis: int | None) -> np.ndarray:
    """[channels] -> [channels], [1] -> 0-d, float64."""
    v = values.double().cpu().numpy()
    return np.asarray(v[0]) if axis is None else v
