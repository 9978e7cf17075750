"""Value-preserving graph edits, one file each with one constant ``PASS``; all go through the door for edits."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable
from functools import cache
from graphlib import TopologicalSorter

from qhyvit.graph.ir import Graph
from qhyvit.passes.shared.graph_pass import Pass, Phase
from qhyvit.registry import discover
from qhyvit.sim.checked import Door
from qhyvit.targets import Target
from qhyvit.targets import target as named_target


@cache
def all_passes() -> dict[str, Pass]:
    """Every pass by name."""
    return discover(sys.modules[__name__], "PASS", Pass)


def in_order(passes: Iterable[Pass]) -> list[Pass]:
    """Passes behind all that they name in ``after``; of several that may come next, the first by name.

    Raises:
        graphlib.CycleError: they wait for each other.
    """
    known = {p.name: p for p in passes}
    sorter = TopologicalSorter({p.name: [name for name in p.after if name in known] for p in known.values()})
    sorter.prepare()
    ready, found = list(sorter.get_ready()), []
    heapq.heapify(ready)
    while ready:
        name = heapq.heappop(ready)
        found.append(known[name])
        sorter.done(name)
        for other in sorter.get_ready():
            heapq.heappush(ready, other)
    return found


def passes_of(phase: Phase, target: Target) -> list[Pass]:
    """The passes of a phase for a target, in order."""
    return in_order(p for p in all_passes().values() if p.phase is phase and (p.only is None or p.only(target)))


def _run(graph: Graph, phase: Phase, target: Target, door: Door | None) -> Graph:
    edits = [p.edit(target) for p in passes_of(phase, target)]
    graph, _ = (door or Door.on_noise(graph)).through(graph, edits)
    graph.check()
    return graph


def shortened(graph: Graph, door: Door | None = None) -> Graph:
    """A converted float graph behind the passes that make it shorter.

    Args:
        door: compares the outputs; None: one with random inputs.

    Raises:
        GraphError: a pass left something that is no graph.
    """
    return _run(graph, Phase.EXPORT, named_target(), door)


def prepared(graph: Graph, target: Target | None = None, door: Door | None = None) -> Graph:
    """A float graph behind the passes that get it ready for calibration; see :func:`shortened`.

    Args:
        target: what the passes are for; None: the default, without float.
    """
    return _run(graph, Phase.PREPARE, target or named_target(), door)
