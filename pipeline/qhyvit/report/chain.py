"""The network as a chain of blocks: stretches of nodes that come from the same module of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qhyvit.graph.ir import Graph, Node


@dataclass(frozen=True)
class Neighbours:
    """Neighbouring nodes, [start, stop) in the order of execution."""

    label: str
    start: int
    stop: int

    def nodes(self, graph: Graph) -> Sequence[Node]:
        """Its nodes."""
        return graph.nodes[self.start : self.stop]


def _module(path: str) -> str:
    """A module path up to its last number: ``stages.2.1.conv_kxk.conv`` is part of ``stages.2.1``."""
    parts = path.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[-1] + 1]) if numbers else parts[0]


def chain(graph: Graph) -> list[Neighbours]:
    """All blocks; a module that the data comes back to is a second block, marked so."""
    found: list[Neighbours] = []
    last = "network"
    for index, node in enumerate(graph.nodes):
        module = _module(node.block) if node.block else last
        if not found or module != last:
            found.append(Neighbours(module, index, index))
        found[-1] = Neighbours(found[-1].label, found[-1].start, index + 1)
        last = module
    return _told_apart(found)


def _told_apart(blocks: Sequence[Neighbours]) -> list[Neighbours]:
    seen: dict[str, int] = {}
    result = []
    for block in blocks:
        seen[block.label] = number = seen.get(block.label, 0) + 1
        label = block.label if number == 1 else f"{block.label} ({number})"
        result.append(Neighbours(label, block.start, block.stop))
    return result


def block_of(graph: Graph, blocks: Sequence[Neighbours]) -> dict[int, str]:
    """Label of the block that each tensor belongs to: its writer's, or for inputs and constants its reader's."""
    found: dict[int, str] = {}
    for block in blocks:
        for node in block.nodes(graph):
            for t in node.inputs:
                found.setdefault(t, block.label)
    for block in blocks:
        for node in block.nodes(graph):
            found.update(dict.fromkeys(node.outputs, block.label))
    return found
