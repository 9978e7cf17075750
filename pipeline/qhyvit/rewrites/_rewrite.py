"""What a rewrite is: a value-preserving edit of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qhyvit.graph.ir import Graph


@dataclass(frozen=True)
class Rewrite:
    """``apply(graph)`` gives an equal graph; ``order`` says which comes first, ``only`` for which profile if one.

    ``export``: it makes the exported float graph shorter; the others get the graph ready for calibration.
    """

    name: str
    summary: str
    apply: Callable[[Graph], Graph]
    order: int = 0
    only: str | None = None
    export: bool = False
