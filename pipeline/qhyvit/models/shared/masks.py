"""Masks of attention, minus infinity or nearly, become as negative as softmax needs: int8 has one step for all.

A score that is 20 below the largest weighs 2e-9. How far scores lie apart is measured on noise, and doubled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from qhyvit.errors import GraphError
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import copying
from qhyvit.ops.shared.spec import Copies
from qhyvit.passes import padded_pools
from qhyvit.tflite.serialize import serialize

MASKED = -1e4  # what is as low as this is a mask
BOUNDLESS = 1e30  # no limit at all, to a clamp
BELOW = 20.0
PASSING = copying(Copies.ONCE) | {"ADD", "SUB", "SELECT_V2"}  # on the way to a softmax


def finite(graph: Graph) -> Graph:
    """The graph with finite constants.

    Raises:
        GraphError: one holds NaN, or an infinite value that is no mask before a softmax.
    """
    graph = _with_finite_masks(_without_idle_limits(graph))
    for node in (n for n in graph.nodes if not padded_pools.is_padding(graph, n)):
        for t in node.inputs:
            data = graph.tensors[t].data if t >= 0 else None
            if data is not None and data.dtype.kind == "f" and not np.isfinite(data).all():
                place = node.block or "the model's own forward"
                raise GraphError(f"{node.op} in {place} reads a constant that holds NaN or infinite values")
    return graph


def _without_idle_limits(graph: Graph) -> Graph:
    """The graph without minima and maxima with what no value passes."""
    signs = {"MINIMUM": 1.0, "MAXIMUM": -1.0}
    for old in graph.nodes:
        node = graph.producer(old.outputs[0])  # as it is by now
        if node is None or node.op not in signs or node.outputs[0] in graph.outputs:
            continue
        limits = [t for t in node.inputs if graph.tensors[t].is_constant]
        if len(limits) == 1 and (graph.constant(limits[0]) * signs[node.op] >= BOUNDLESS).all():
            source = next(t for t in node.inputs if t not in limits)
            if graph.tensors[source].shape == graph.tensors[node.outputs[0]].shape:
                graph = edit.bypassed(graph, node, source)
    return graph


def _masks(graph: Graph) -> Iterator[tuple[Node, int, int]]:
    """Nodes that mask scores, with the mask's id and that of the scores."""
    for node in graph.nodes:
        operands = {"ADD": node.inputs, "SUB": node.inputs, "SELECT_V2": node.inputs[1:]}.get(node.op, ())
        constants = [t for t in operands if graph.tensors[t].is_constant]
        if len(operands) == 2 and len(constants) == 1 and _to_softmax(graph, node):
            mask = constants[0]
            sign = -1 if node.op == "SUB" else 1
            if node.op == "SUB" and operands[0] == mask:
                continue
            if (graph.constant(mask) * sign <= MASKED).any():
                yield node, mask, next(t for t in operands if t != mask)


def _to_softmax(graph: Graph, node: Node) -> bool:
    """Whether nobody reads a node's output but softmaxes, perhaps through what moves and adds."""
    users = [u for t in node.outputs for u in graph.users(t)]
    return bool(users) and all(u.op == "SOFTMAX" or (u.op in PASSING and _to_softmax(graph, u)) for u in users)


def _with_finite_masks(graph: Graph) -> Graph:
    found = [(n, m, s) for n, m, s in _masks(graph) if all(u.op in ("ADD", "SUB", "SELECT_V2") for u in graph.users(m))]
    if not found:
        return graph
    largest = _largest(graph, {s for _, _, s in found} | {n.inputs[0] for n in graph.nodes if n.op == "SOFTMAX"})
    masks = {}
    for node, mask, _ in found:
        data, sign = graph.constant(mask), -1 if node.op == "SUB" else 1
        low = -(BELOW + (2 if node.op == "SELECT_V2" else 4) * largest)
        masks[mask] = np.where(data * sign <= MASKED, np.float32(sign * low), data)
    return edit.with_constants(graph, masks)


def _largest(graph: Graph, scores: Iterable[int]) -> float:
    """Largest magnitude of scores that are not masked, on an image of noise."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=serialize(graph), num_threads=1, experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], np.random.default_rng(0).random(entry["shape"], dtype=np.float32))
    interpreter.invoke()
    place = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    found = [interpreter.get_tensor(place[graph.tensors[t].name]) for t in scores]
    return max(float(np.abs(v[v > MASKED / 2]).max(initial=0.0)) for v in found)
