"""Value-preserving graph edits, one file each with one constant ``REWRITE``; all go through the door for edits."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.graph.ir import Graph
from qhyvit.registry import discover
from qhyvit.rewrites._rewrite import Rewrite
from qhyvit.sim.checked import Door, Edit


@cache
def all_rewrites() -> dict[str, Rewrite]:
    """Every rewrite by name."""
    return discover(sys.modules[__name__], "REWRITE", Rewrite)


def _apply(graph: Graph, door: Door | None, *, export: bool, profile: str | None) -> Graph:
    chosen = [r for r in all_rewrites().values() if r.export == export and r.only in (None, profile)]
    edits = [Edit(f"rewrite {r.name}", r.apply) for r in sorted(chosen, key=lambda r: r.order)]
    graph, _ = (door or Door.on_noise(graph)).through(graph, edits)
    graph.check()
    return graph


def shorten(graph: Graph, door: Door | None = None) -> Graph:
    """Apply those that make the exported float graph shorter, in order, and check the result.

    Args:
        door: compares the outputs; None: one with random inputs.
    """
    return _apply(graph, door, export=True, profile=None)


def rewrite(graph: Graph, profile: str = "integer", door: Door | None = None) -> Graph:
    """Apply those that get a graph ready for calibration in ``profile``, in order, and check the result.

    Args:
        door: compares the outputs; None: one with random inputs.
    """
    return _apply(graph, door, export=False, profile=profile)
