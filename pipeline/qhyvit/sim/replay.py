"""What comes out of a float network when some of its tensors change, without running what lies before them again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch

from qhyvit.graph.ir import Graph, Node
from qhyvit.sim.run import Executor, rows_of, walk


class Replay:
    """All values of one float run (gates exact) on images [B, H, W, C], kept: memory of every activation."""

    def __init__(self, graph: Graph, images: torch.Tensor) -> None:
        self.graph, self.executor = graph, Executor(graph, exact=True)
        with torch.no_grad():
            self.values = self.executor.run(images, None, [t.id for t in graph.activations()])

    @cached_property
    def _index(self) -> dict[int, int]:
        """Position of the node that writes each tensor."""
        return {t: i for i, node in enumerate(self.graph.nodes) for t in node.outputs}

    def rows(self, changed: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """All outputs [B, N] with the tensors ``changed`` in place of their own values.

        Only nodes that read something changed run again; a tensor of ``changed`` keeps the value given.

        Args:
            changed: by id, [B, *file shape]; constants as the op's forward takes them (weights: file shape, operands:
                [1, *file shape]).
        """
        overlay = dict(changed)
        first = min((self._index.get(t, -1) for t in changed), default=len(self.graph.nodes))
        with torch.no_grad():
            for node in walk(self.graph, overlay, start=first + 1):
                self._again(node, changed, overlay)
        return rows_of(self.graph, {t: overlay.get(t, self.values[t]) for t in self.graph.outputs})

    def _again(self, node: Node, changed: Mapping[int, torch.Tensor], overlay: dict[int, torch.Tensor]) -> None:
        """Run one node if it reads something that is not as it was."""
        if not any(t in overlay for t in node.inputs) or all(t in changed for t in node.outputs):
            return
        seen = {t: x for t in node.inputs for x in (overlay.get(t, self.values.get(t)),) if x is not None}
        for t, y in zip(node.outputs, self.executor.outputs(node, seen), strict=True):
            overlay[t] = changed.get(t, y)
