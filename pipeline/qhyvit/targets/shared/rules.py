"""What a compiler that cannot be run here takes, as its makers publish it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from qhyvit.graph.ir import Graph, Node

Rule: TypeAlias = Callable[[Graph, Node], str]
"""(typed graph, node of it) -> why the compiler leaves the node to the processor; "" where it takes it."""


def anything(graph: Graph, node: Node) -> str:
    """The rule of an op without limits."""
    return ""


@dataclass(frozen=True, eq=False)
class Rules:
    """Published rules of one compiler.

    Args:
        whose: the compiler, in words.
        source: where they stand.
        every: what holds for all ops.
        ops: the rule of each op that it takes, by TFLite's name; it takes no others.
    """

    whose: str
    source: str
    every: Rule
    ops: Mapping[str, Rule]

    def reason(self, graph: Graph, node: Node) -> str:
        """Why the compiler leaves ``node`` to the processor; "" where it takes it."""
        own = self.ops.get(node.op)
        return "not among the supported operations" if own is None else self.every(graph, node) or own(graph, node)
