"""Which layers have weights of four bits: of what each saves in the file, what it costs at the outputs.

The price of a layer is the objective's: the squared gradient of the distance at its output, with all candidates at four
bits, times the square error that its codes leave there. The layers with the highest price a byte stay int8 as long as
the file may be larger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from qhyvit.errors import UsageError
from qhyvit.graph.ir import Graph
from qhyvit.lowering.int4 import as_linear, is_pointwise, may_take_int4
from qhyvit.methods.shared.hessian import GradientPass
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops.shared.layer import Layer, layers
from qhyvit.plan import TensorQuant

SHARE = 0.62  # of the file with int8 weights, where no size is asked for
TABLES = 256  # bytes by which a file may grow beside the codes of a layer that goes back to int8


@dataclass(frozen=True)
class Price:
    """What a layer of four bits costs at the outputs, in the distance's own unit, and saves in the file, in bytes."""

    weight: str
    loss: float
    saved: int

    @property
    def rate(self) -> float:
        """Loss a byte."""
        return self.loss / self.saved


def candidates(graph: Graph) -> list[Layer]:
    """Layers that a kernel with int4 weights can compute; no other node reads their weights."""
    alone = (layer for layer in layers(graph) if len(graph.users(layer.weight)) == 1)
    return [layer for layer in alone if may_take_int4(graph, layer.node)]


def check_four_bits(problem: Problem) -> None:
    """Refuse at once, and not behind a search, what no search can give.

    Raises:
        UsageError: no layer can have weights of four bits, or weights alone are more than ``problem.size`` bytes.
    """
    graph = problem.graph
    four = {layer.weight for layer in candidates(graph)}
    if not four:
        raise UsageError("--bits w4a8: no layer of this network can have weights of four bits; leave it out")
    weights = {layer.weight for layer in layers(graph)}
    least = sum(graph.constant(t).size // (2 if t in four else 1) for t in weights if graph.tensors[t].is_constant)
    if problem.size and least > problem.size:
        raise UsageError(_too_small(problem.size, f"weights alone are {least / 1e6:.2f} MB"))


def _too_small(size: int, why: str) -> str:
    return f"--size {size / 1e6:g}MB is too small: with all weights of four bits that can have them {why}"


def prices(problem: Problem, quants: Mapping[str, TensorQuant], errors: Mapping[str, torch.Tensor]) -> list[Price]:
    """Price of each candidate.

    Args:
        quants: with all candidates at four bits, as ``problem.graph`` holds them.
        errors: mean square error of each output channel by the weight's name, [O].
    """
    graph, found = problem.graph, {layer.out: layer for layer in candidates(problem.graph)}
    passes, squares = GradientPass(problem, quants, [*found]), dict.fromkeys(found, torch.zeros(()))
    for gradients, _ in problem.each(passes.gradients, "weigh layers"):
        for t, g in gradients.items():
            squares[t] = squares[t] + (g.reshape(-1, g.shape[-1]) ** 2).sum(0) / len(problem.images)
    rows = []
    for t, layer in found.items():
        tensor = graph.tensors[layer.weight]
        loss = float((squares[t].double() * errors[tensor.name]).sum())
        rows.append(Price(tensor.name, loss, graph.constant(tensor.id).size // 2))
    return rows


def within(rows: Sequence[Price], smallest: int, size: int) -> list[str]:
    """Weights that have four bits in a file of ``size`` bytes; ``smallest``: that with all of them.

    Raises:
        UsageError: not even that is small enough.
    """
    if smallest > size:
        raise UsageError(_too_small(size, f"the file has {smallest / 1e6:.2f} MB"))
    chosen, left = {row.weight for row in rows}, size - smallest
    for row in sorted(rows, key=lambda row: -row.rate):
        if row.saved + TABLES <= left:
            left -= row.saved + TABLES
            chosen.remove(row.weight)
    return [row.weight for row in rows if row.weight in chosen]


def with_linears(graph: Graph, weights: Collection[str]) -> Graph:
    """The graph whose pointwise convolutions with these weights are linears."""
    for node in graph.nodes:
        if is_pointwise(graph, node) and graph.tensors[node.inputs[1]].name in weights:
            graph = as_linear(graph, node)
    return graph
