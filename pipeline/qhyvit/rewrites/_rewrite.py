"""What a rewrite is: a value-preserving edit that every graph gets before calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qhyvit.graph.ir import Graph


@dataclass(frozen=True)
class Rewrite:
    """``apply(graph)`` gives an equal graph; ``order`` says which comes first."""

    name: str
    summary: str
    apply: Callable[[Graph], Graph]
    order: int = 0
