"""Layers as PTQ papers see them: sampled inputs and outputs of every op with weights, and candidate searches on them.

The rivals search scale by scale on the error of a layer's own output; rows sampled from all images keep that cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.methods.shared.hessian import GradientPass
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import weight_quant, weight_scales
from qhyvit.ops.shared.layer import Layer, layers
from qhyvit.ops.shared.spec import activate
from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import fake_quantize

POSITIONS = 32  # sampled an image and layer
# metric(float [G, n, O], quantized [G, n, O], gradients [G, n, O] or None) -> goodness of each output channel [G, O]
Metric = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


@dataclass
class Sampled:
    """An op with weights [G, O, K] and bias [G, O]: rows [G, n, K] that it reads, outputs and gradients [G, n, O]."""

    layer: Layer
    weight_name: str
    x: torch.Tensor
    y: torch.Tensor
    g: torch.Tensor | None
    w: torch.Tensor
    bias: torch.Tensor
    fused: str

    def output(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """[G, n, O] of other inputs and weights."""
        return activate(x @ w.transpose(1, 2) + self.bias[:, None, :], self.fused)

    def rounded_weights(self, scale: np.ndarray, bits: int) -> torch.Tensor:
        """Weights on the grid of ``scale`` [O]."""
        steps = self.layer.per_channel(torch.from_numpy(scale).float())
        top = affine.grid(bits).qmax
        return torch.clamp(torch.round(self.w / steps), -top, top) * steps


def cosine(y: torch.Tensor, z: torch.Tensor, g: torch.Tensor | None) -> torch.Tensor:
    """Cosine similarity (EasyQuant)."""
    return torch.nn.functional.cosine_similarity(y, z, dim=1, eps=1e-12)


def hessian(y: torch.Tensor, z: torch.Tensor, g: torch.Tensor | None) -> torch.Tensor:
    """-sum g^2 (y - z)^2 (PTQ4ViT, Q-HyViT)."""
    assert g is not None
    return -((g * (y - z)) ** 2).sum(dim=1)


class _Sampler:
    """Collects rows at random positions, the same for inputs, outputs and gradients."""

    def __init__(self, graph: Graph, seed: int) -> None:
        self.graph, self.random = graph, torch.Generator().manual_seed(seed)
        self.layers = layers(graph)
        self.rows: dict[int, tuple[list[torch.Tensor], ...]] = {n.out: ([], [], []) for n in self.layers}

    @property
    def tensors(self) -> list[int]:
        """Ids whose values are needed."""
        return list(dict.fromkeys(t for n in self.layers for t in (n.data, n.out)))

    def add(self, values: Mapping[int, torch.Tensor], gradients: Mapping[int, torch.Tensor]) -> None:
        """Take one batch."""
        for layer in self.layers:
            for i in range(len(values[layer.out])):
                rows = layer.patches(values[layer.data][i : i + 1])
                at = torch.randint(0, rows.shape[1], (POSITIONS,), generator=self.random)
                kept = self.rows[layer.out]
                kept[0].append(rows[:, at])
                for place, source in ((1, values), (2, gradients)):
                    if layer.out in source:
                        kept[place].append(layer.outputs(source[layer.out][i])[:, at])

    def sampled(self) -> list[Sampled]:
        """What was collected."""
        found = []
        for layer in self.layers:
            x, y, g = self.rows[layer.out]
            bias = torch.from_numpy(self.graph.constant(layer.bias).astype(np.float32))
            found.append(
                Sampled(
                    layer, self.graph.tensors[layer.weight].name, torch.cat(x, 1), torch.cat(y, 1),
                    torch.cat(g, 1) if g else None, layer.rows(self.graph.constant(layer.weight)).float(),
                    layer.per_channel(bias)[:, :, 0], getattr(layer.node.attrs, "fused_activation_function", "NONE"),
                )
            )  # fmt: skip
        return found


def sample(problem: Problem, start: Mapping[str, TensorQuant]) -> list[Sampled]:
    """Layers with gradients of the distance to the float outputs, the network quantized by ``start``."""
    sampler = _Sampler(problem.graph, problem.seed)
    passes = GradientPass(problem, start, sampler.tensors)
    for step in problem.each(passes.step, "sample layers"):
        sampler.add(step.values, step.gradients)
    return sampler.sampled()


@dataclass
class LayerSearch:
    """Alternating search of weight scales and of the quantization of the tensors that layers read.

    Args:
        candidates: for an activation's id, the quantizations to try.
        multiples: of the min-max weight scale, to try.
    """

    problem: Problem
    layers: Sequence[Sampled]
    metric: Metric
    candidates: Mapping[int, Sequence[TensorQuant]]
    multiples: np.ndarray
    weights: dict[str, TensorQuant] = field(default_factory=dict)
    chosen: dict[int, TensorQuant] = field(default_factory=dict)

    def run(self, rounds: int) -> None:
        """``weights`` and ``chosen`` then hold the best found."""
        for number in range(rounds):
            for done, layer in enumerate(self.layers):
                share = (number + done / len(self.layers)) / rounds
                self.problem.progress("search layers", share)
                self._search_weights(layer)
            for source in dict.fromkeys(layer.layer.data for layer in self.layers):
                self._search_source(source)

    def _rounded_input(self, layer: Sampled) -> torch.Tensor:
        quant = self.chosen.get(layer.layer.data)
        return layer.x if quant is None else fake_quantize(layer.x, quant)

    def _search_weights(self, layer: Sampled) -> None:
        x, bits = self._rounded_input(layer), self.problem.bits
        data = self.problem.graph.constant(layer.layer.weight)
        scores = []
        for m in self.multiples:
            w = layer.rounded_weights(weight_scales(data, layer.layer.axis, m, bits), bits)
            scores.append(self.metric(layer.y, layer.output(x, w), layer.g).flatten())
        best = torch.stack(scores).argmax(dim=0).numpy()  # [O], each output channel on its own
        scale = weight_scales(data, layer.layer.axis, self.multiples[best], bits)
        self.weights[layer.weight_name] = weight_quant(scale, layer.layer.axis, "search", bits)

    def _search_source(self, source: int) -> None:
        """One quantization for all layers that read ``source``."""
        tries = self.candidates.get(source, ())
        total = torch.zeros(len(tries))
        if not len(tries):
            return
        for layer in self.layers:
            if layer.layer.data != source:
                continue
            w = layer.rounded_weights(np.asarray(self.weights[layer.weight_name].scale), self.problem.bits)
            scores = [self.metric(layer.y, layer.output(fake_quantize(layer.x, q), w), layer.g).mean() for q in tries]
            total += torch.stack(scores)
        self.chosen[source] = tries[int(total.argmax())]
