"""What a fold is: a float-exact edit that lets one scale a tensor act like one a channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qhyvit.graph.ir import Graph


@dataclass(frozen=True)
class Place:
    """Where a fold can act.

    ``tensors``: ids whose channels will be divided by r (their last axis), all by the same r, the last one being what r
    is made for; ``cost_ms``: what the ops that come in take on one core, roughly; ``exact_power``: r to this power has
    to lie on the 8-bit grid, 0: r is free.
    """

    name: str
    tensors: tuple[int, ...]
    channels: int
    cost_ms: float = 0.0
    exact_power: int = 0


@dataclass(frozen=True)
class Fold:
    """``places(graph)`` finds candidates; ``apply(graph, place, r)`` edits, float output unchanged (tested)."""

    name: str
    summary: str
    places: Callable[[Graph], list[Place]]
    apply: Callable[[Graph, Place, np.ndarray], Graph]
