"""LayerNorm in the form that keeps most in int8: the difference from the mean first, then one product with 1 / r.

Exporters write norms in many ways. x * r + (0 - mean * r), r = rsqrt(var + eps), rounds x * r, which is as
wide as x is far from zero, before the mean is taken off; as int8 that is most of what the norm was there to keep. So a
norm is recognised by what it computes, not by its ops: from a tensor x that a MEAN over channels reads, the ops that
depend on nothing else are run on random values, and where one of their results is (x - mean) / sqrt(var + eps), that
one is made anew from x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.passes.shared.graph_pass import Pass
from qhyvit.passes.shared.values import EQUAL, depends_on, results_of


@dataclass(frozen=True)
class _Norm:
    """``output`` is ``source`` normalised over its last axis, with ``eps`` added to the variance."""

    source: int
    output: int
    root: int
    eps: float


def _found(graph: Graph, tensor: int, start: int) -> _Norm | None:
    """The norm of ``tensor``, if the ops behind it compute one."""
    nodes = depends_on(graph, tensor, start)
    roots = [n for n in nodes if n.op == "RSQRT"]
    if not roots:
        return None
    values = results_of(graph, tensor, nodes)
    x = values[tensor]
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = (centred * centred).mean(dim=-1)
    for root in roots:
        r = values[root.outputs[0]]
        if r.numel() != variance.numel():
            continue
        offset = r.reshape(variance.shape) ** -2 - variance
        eps = max(float(offset.mean()), 0.0)
        if float((offset - eps).abs().max()) > EQUAL * float(variance.mean()):
            continue
        expected = centred * (variance + eps).rsqrt()[..., None]
        for node in nodes:
            y = values[node.outputs[0]]
            if y.shape == x.shape and float((y - expected).abs().max()) < EQUAL * float(expected.abs().max()):
                return _Norm(tensor, node.outputs[0], root.outputs[0], eps)
    return None


def _is_short(graph: Graph, norm: _Norm) -> bool:
    """Whether it is a product of the difference already."""
    node = graph.producer(norm.output)
    makers = [graph.producer(t) for t in node.inputs] if node is not None and node.op == "MUL" else []
    return any(m is not None and m.op == "SUB" and m.inputs[0] == norm.source for m in makers)


def _eps_of(graph: Graph, norm: _Norm) -> np.float32:
    """The constant that the root's operand was made with, where there is one near; else as it was computed."""
    root = graph.producer(norm.root)
    added = None if root is None else graph.producer(root.inputs[0])
    terms = [] if added is None else [t for t in added.inputs if t >= 0 and graph.tensors[t].is_constant]
    values = [float(v) for t in terms for v in graph.constant(t).ravel()[:1]]
    near = [v for v in values if abs(v - norm.eps) < 0.01 * norm.eps]
    return np.float32(near[0] if near else norm.eps)


def _made(graph: Graph, norm: _Norm) -> Graph:
    last = graph.producer(norm.output)
    assert last is not None
    chain, source, shape = Chain(graph, last), norm.source, graph.tensors[norm.source].shape
    axis, eps = chain.constant([len(shape) - 1]), np.full((*shape[:-1], 1), _eps_of(graph, norm))
    centre = chain.add("SUB", source, chain.add("MEAN", source, axis, keep_dims=True))
    variance = chain.add("MEAN", chain.add("MUL", centre, centre), axis, keep_dims=True)
    root = chain.add("RSQRT", chain.add("ADD", variance, chain.constant(eps)))
    return chain.instead("MUL", centre, root)


def _averages_channels(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is a MEAN over the last axis, and over others of length 1 at the most."""
    if node.op != "MEAN":
        return False
    shape = graph.tensors[node.inputs[0]].shape
    axes = axes_of(graph.constant(node.inputs[1]), len(shape))
    return len(shape) - 1 in axes and shape[-1] > 1 and all(shape[a] == 1 for a in axes if a != len(shape) - 1)


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same norm."""
    if not any(n.op == "RSQRT" for n in graph.nodes):
        return graph
    for tensor in dict.fromkeys(n.inputs[0] for n in graph.nodes if _averages_channels(graph, n)):
        if tensor not in graph.tensors or not graph.users(tensor):
            continue
        norm = _found(graph, tensor, graph.nodes.index(graph.users(tensor)[0]))
        if norm is not None and norm.output not in graph.outputs and not _is_short(graph, norm):
            graph = _made(graph, norm)
    return graph


PASS = Pass("layer_norms", "norms take the mean off first", apply, after=("quotients",))
