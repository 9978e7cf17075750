"""A norm over all values of a map, in the form that keeps most in int8.

ONNX has no such norm: exporters write it as an InstanceNormalization of the map as one row, TRANSPOSE and RESHAPE in
front and behind. Its mean and variance do not depend on the order of values, so that neither is needed. The sum of
squares is the row's product with itself, whose int8 form adds up in 32 bits: a map of squares would have codes of its
own, most of them 0. Recognised by what is computed, as :mod:`qhyvit.passes.layer_norms` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass, Phase
from qhyvit.passes.shared.values import EQUAL, depends_on, results_of


@dataclass(frozen=True)
class _SampleNorm:
    """``output`` is a row normalised, with ``eps`` added to its variance."""

    output: int
    eps: float


def _found(graph: Graph, row: Node) -> _SampleNorm | None:
    """The norm of the row that ``row``, a RESHAPE, makes, if the ops behind it compute one."""
    tensor = row.outputs[0]
    nodes = depends_on(graph, tensor, graph.nodes.index(row) + 1)
    roots = [n for n in nodes if n.op == "RSQRT" and math.prod(graph.tensors[n.outputs[0]].shape) == 1]
    if not roots:
        return None
    values = results_of(graph, tensor, nodes)
    x = values[tensor]
    centred, variance = x - x.mean(), x.var(correction=0)
    eps = float(values[roots[0].outputs[0]] ** -2 - variance)
    if eps < -EQUAL * float(variance):
        return None
    eps = max(eps, 0.0)
    expected = centred * torch.rsqrt(variance + eps)
    for node in reversed(nodes):
        y = values[node.outputs[0]]
        same = y.numel() == x.numel() and node.op not in ("RESHAPE", "TRANSPOSE")
        if same and float((y.reshape(x.shape) - expected).abs().max()) < EQUAL * float(expected.abs().max()):
            return _SampleNorm(node.outputs[0], eps)
    return None


def _made(graph: Graph, norm: _SampleNorm, source: int, last: Node) -> Graph:
    """The graph with the norm in the shape of the map ``source`` in the place of ``last``, the RESHAPE behind it."""
    before, chain = graph.producer(source), Chain(graph, last)
    turn = before if before is not None and before.op == "TRANSPOSE" else None
    if graph.tensors[source].shape != graph.tensors[last.outputs[0]].shape:
        turn, source = None, chain.reshape(source, *graph.tensors[last.outputs[0]].shape)
    elif turn is not None:
        source = turn.inputs[0]
    shape = chain.graph.tensors[source].shape
    count = math.prod(shape)
    axes = chain.constant(np.arange(1, len(shape)))
    centre = chain.add("SUB", source, chain.add("MEAN", source, axes, keep_dims=True))
    row = chain.reshape(centre, 1, count)
    squares = chain.add("FULLY_CONNECTED", row, row, -1)
    root = chain.add("RSQRT", chain.add("ADD", squares, chain.constant(np.full((1, 1), norm.eps * count))))
    scaled, gain = chain.add("MUL", centre, root), chain.constant(np.full(1, math.sqrt(count)))
    if turn is None:
        return chain.instead("MUL", scaled, gain)
    order = chain.constant(chain.graph.constant(turn.inputs[1]))
    return chain.instead("TRANSPOSE", chain.add("MUL", scaled, gain), order)


def _is_row(graph: Graph, node: Node) -> bool:
    """Whether a node makes a map of at least three axes a single row."""
    if node.op != "RESHAPE" or graph.tensors[node.inputs[0]].is_constant:
        return False
    before, behind = (graph.tensors[t].shape for t in (node.inputs[0], node.outputs[0]))
    return len(before) > 2 and before[0] == 1 and max(behind) == math.prod(behind) > max(before)


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same norm."""
    if not any(n.op == "RSQRT" for n in graph.nodes):
        return graph
    for old in graph.nodes:
        row = graph.producer(old.outputs[0])
        norm = _found(graph, row) if row is not None and _is_row(graph, row) else None
        if row is None or norm is None or norm.output in graph.outputs:
            continue
        for last in graph.users(norm.output):
            if last.op == "RESHAPE" and len(graph.tensors[last.outputs[0]].shape) > 2:
                graph = _made(graph, norm, row.inputs[0], last)
    return edit.without_unread(graph)


PASS = Pass("sample_norms", "norms over a whole map are computed on the map", apply, phase=Phase.EXPORT)
