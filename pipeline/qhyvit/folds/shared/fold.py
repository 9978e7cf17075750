"""What a fold is: a float-exact edit that lets one scale a tensor act like one a channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qhyvit.graph.ir import Graph
from qhyvit.latency.work import KernelWork

INT16_TOP = 2**15 - 1


@dataclass(frozen=True)
class Place:
    """Where a fold can act.

    Args:
        name: of the tensor where it acts.
        tensors: ids whose channels will be divided by r (their last axis), the last one being what r is made for.
        channels: length of r.
        adds, saves: the ops that come and go, as a latency profile counts them.
        exact_power: r to this power has to lie on the 8-bit grid, 0: r is free.
        parts: other tensors that r divides: their ids, and the position in r of each of their channels, -1: none.
    """

    name: str
    tensors: tuple[int, ...]
    channels: int
    adds: tuple[KernelWork, ...] = ()
    saves: tuple[KernelWork, ...] = ()
    exact_power: int = 0
    parts: tuple[tuple[int, tuple[int, ...]], ...] = ()

    @property
    def divided(self) -> tuple[int, ...]:
        """Ids of all tensors that r divides."""
        return (*self.tensors, *(t for t, _ in self.parts))


def on_int16_grid(factor: np.ndarray) -> np.ndarray:
    """Positive factors [C] as int16 codes have them, times one step: an int16 island's constant is then exact."""
    step = float(np.max(factor)) / INT16_TOP
    return np.maximum(np.rint(np.asarray(factor, np.float64) / step), 1.0) * step


@dataclass(frozen=True)
class Fold:
    """``places(graph)`` finds candidates; ``apply(graph, place, r)`` edits, float output unchanged (tested)."""

    name: str
    summary: str
    places: Callable[[Graph], list[Place]]
    apply: Callable[[Graph, Place, np.ndarray], Graph]
