"""What quantization costs: each tensor and each block alone, everything up to a block, everything with one change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.constants import constants_on_grid_of, on_grid
from qhyvit.lowering.contracts import operand_positions, weights
from qhyvit.methods.shared.hessian import Capture
from qhyvit.plan import TensorQuant
from qhyvit.progress import Progress
from qhyvit.report.chain import Neighbours
from qhyvit.sim.fakequant import fake_quantize, rounds
from qhyvit.sim.replay import Replay
from qhyvit.sim.run import Executor
from qhyvit.stages.solved import Solved
from qhyvit.tasks.shared.task import Measure


@dataclass(frozen=True)
class Rounded:
    """One tensor that the plan rounds: ``node`` writes it (activations), or is the first to read it (constants)."""

    tensor: Tensor
    quant: TensorQuant
    kind: str  # activation, weight, constant
    node: Node | None


def rounded_tensors(graph: Graph, quants: Mapping[str, TensorQuant]) -> list[Rounded]:
    """All tensors whose values get codes, in the order of execution; copies of codes are left out."""
    found: list[Rounded] = []
    weight_ids = {w.id for _, w, _ in weights(graph)}
    for tensor in (graph.tensors[t] for t in graph.inputs):
        if tensor.name in quants:
            found.append(Rounded(tensor, quants[tensor.name], "activation", None))
    seen = set()
    for node in graph.nodes:
        for t in (node.inputs[i] for i in _constant_positions(graph, node)):
            tensor = graph.tensors[t]
            if tensor.name in quants and t not in seen:
                seen.add(t)
                found.append(Rounded(tensor, quants[tensor.name], "weight" if t in weight_ids else "constant", node))
        for tensor in (graph.tensors[t] for t in node.outputs):
            if tensor.name in quants and rounds(node):
                found.append(Rounded(tensor, quants[tensor.name], "activation", node))
    return found


def _constant_positions(graph: Graph, node: Node) -> list[int]:
    """Positions of float constants with codes: the weights, and operands; no bias."""
    own = {i for n, w, _ in weights(graph) if n is node for i, t in enumerate(node.inputs) if t == w.id}
    positions = sorted(own | set(operand_positions(node)))
    return [i for i in positions if node.inputs[i] >= 0 and graph.tensors[node.inputs[i]].dtype == "FLOAT32"
            and graph.tensors[node.inputs[i]].is_constant]  # fmt: skip


class Costs:
    """Distance to the exported float file's outputs, mean over a batch of images, for parts of the network quantized.

    Args:
        images: [B, H, W, C]; ``reference``: outputs of the exported float file for them, [B, outputs].

    Alone, weights are the float ones rounded to the nearest code; what the file holds (weights that make up for the
    errors before them) counts in ``up_to`` and ``everything``.
    """

    def __init__(
        self, solved: Solved, images: torch.Tensor, reference: torch.Tensor, measure: Measure
    ) -> None:
        self.graph, self.shipped, self.quants = solved.folded, solved.shipped, dict(solved.plan.tensors)
        self.images = images
        self.replay = Replay(self.graph, images)
        self.reference, self.measure = reference, measure

    def of(self, logits: torch.Tensor) -> float:
        """Mean distance of these outputs [B, outputs] from the reference."""
        return float(self.measure.distance(self.reference, logits).double().mean())

    def values(self, item: Rounded) -> torch.Tensor:
        """Float values: [B, *file shape], constants [*file shape]."""
        if item.kind == "activation":
            return self.replay.values[item.tensor.id]
        return torch.tensor(self.graph.constant(item.tensor.id))

    def rounded(self, item: Rounded) -> torch.Tensor:
        """The same on their grid."""
        if item.kind == "activation":
            return fake_quantize(self.values(item), item.quant)
        return torch.from_numpy(on_grid(self.graph.constant(item.tensor.id), item.quant))

    def alone(self, item: Rounded) -> float:
        """KL with one tensor rounded and all else float."""
        y = self.rounded(item)
        return self.of(self.replay.rows({item.tensor.id: y[None] if item.kind == "constant" else y}))

    def block_alone(self, block: Neighbours) -> float:
        """KL with one block quantized, fed with float values."""
        values = dict(self.replay.values)
        self._quantized_run(self._nearest, block, values, self._start(values) if block.start == 0 else {})
        written = {t: values[t] for node in block.nodes(self.graph) for t in node.outputs}
        return self.of(self.replay.rows({**self._start(values), **written} if block.start == 0 else written))

    def up_to(self, blocks: Sequence[Neighbours], progress: Progress) -> list[float]:
        """KL with everything from the input to the end of each block quantized as in the file."""
        executor = Executor(constants_on_grid_of(self.shipped, self.quants))
        values = dict(self.replay.values)
        written = self._start(values)
        found = []
        for number, block in enumerate(blocks):
            progress("accumulate", number / len(blocks))
            self._quantized_run(executor, block, values, written)
            found.append(self.of(self.replay.rows(written)))
        return found

    def everything(self, quants: Mapping[str, TensorQuant], constants: Graph | None = None) -> torch.Tensor:
        """Logits [B, classes] with all that ``quants`` names quantized.

        Args:
            constants: the graph whose constants count; default: those of the file.
        """
        executor = Executor(constants_on_grid_of(constants or self.shipped, quants))
        with torch.no_grad():
            return executor.rows(self.images, Capture(quants, ()))

    @cached_property
    def _nearest(self) -> Executor:
        return Executor(constants_on_grid_of(self.graph, self.quants))

    def _start(self, values: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """The quantized input, put into ``values``."""
        source = self.graph.tensors[self.graph.inputs[0]]
        if source.name not in self.quants:
            return {}
        values[source.id] = fake_quantize(self.replay.values[source.id], self.quants[source.name])
        return {source.id: values[source.id]}

    def _quantized_run(
        self, executor: Executor, block: Neighbours, values: dict[int, torch.Tensor], written: dict[int, torch.Tensor]
    ) -> None:
        """Run a block's nodes on ``values``; its outputs replace those in ``values`` and join ``written``."""
        hook = Capture(self.quants, ())
        with torch.no_grad():
            for node in block.nodes(self.graph):
                for t, y in zip(node.outputs, executor.outputs(node, values), strict=True):
                    written[t] = values[t] = hook(self.graph.tensors[t], y, node)
