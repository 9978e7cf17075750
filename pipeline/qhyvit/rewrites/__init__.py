"""Value-preserving graph edits, one file each with one constant ``REWRITE``."""

from __future__ import annotations

import sys
from functools import cache

from qhyvit.graph.ir import Graph
from qhyvit.registry import discover
from qhyvit.rewrites._rewrite import Rewrite


@cache
def all_rewrites() -> dict[str, Rewrite]:
    """Every rewrite by name."""
    return discover(sys.modules[__name__], "REWRITE", Rewrite)


def _apply(graph: Graph, *, export: bool, profile: str | None) -> Graph:
    for entry in sorted(all_rewrites().values(), key=lambda r: r.order):
        if entry.export == export and entry.only in (None, profile):
            graph = entry.apply(graph)
    graph.check()
    return graph


def shorten(graph: Graph) -> Graph:
    """Apply those that make the exported float graph shorter, in order, and check the result."""
    return _apply(graph, export=True, profile=None)


def rewrite(graph: Graph, profile: str = "integer") -> Graph:
    """Apply those that get a graph ready for calibration in ``profile``, in order, and check the result."""
    return _apply(graph, export=False, profile=profile)
