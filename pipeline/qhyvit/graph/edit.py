"""Edits of a Graph. Each makes a new Graph; the old one stays as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.errors import GraphError
from qhyvit.graph.ir import INT8, Graph, Node, Tensor


def with_constants(graph: Graph, values: Mapping[int, NDArray[Any]]) -> Graph:
    """Replace the values of constants (same shapes)."""
    tensors = dict(graph.tensors)
    for t, data in values.items():
        tensors[t] = replace(tensors[t], data=np.asarray(data, graph.constant(t).dtype, order="C"))
    return replace(graph, tensors=tensors)


def with_named(graph: Graph, values: Mapping[str, NDArray[Any]]) -> Graph:
    """Replace the values of constants by name (same shapes).

    Raises:
        GraphError: no such constant, or another shape.
    """
    for name, data in values.items():
        tensor = graph.by_name.get(name)
        if tensor is None or tensor.data is None or tensor.shape != data.shape:
            raise GraphError(f"constant {name!r} of shape {list(data.shape)} does not fit the graph")
    return with_constants(graph, {graph.by_name[name].id: data for name, data in values.items()})


def add_tensor(graph: Graph, name: str, shape: Sequence[int], dtype: str, data: Any = None) -> tuple[Graph, int]:
    """Add a tensor under a name made unique; returns the graph and the new id."""
    new_id = max(graph.tensors) + 1
    unique, n = name, 1
    while unique in graph.by_name:
        n += 1
        unique = f"{name}.{n}"
    tensor = Tensor(new_id, unique, tuple(int(s) for s in shape), dtype, data)
    return replace(graph, tensors={**graph.tensors, new_id: tensor}), new_id


def computed_in(graph: Graph, outputs: Iterable[int], reads: str, writes: str) -> Graph:
    """The graph whose nodes that write ``outputs`` are to be computed in these types."""
    wanted = set(outputs)

    def typed(node: Node) -> Node:
        same = (node.reads, node.writes) == (reads, writes) or not wanted.intersection(node.outputs)
        return node if same else replace(node, reads=reads, writes=writes)

    return replace(graph, nodes=tuple(map(typed, graph.nodes)))


def all_int8(graph: Graph) -> Graph:
    """The graph without islands."""
    return computed_in(graph, graph.islands | graph.widened, INT8, INT8)


def insert_before(graph: Graph, anchor: Node, node: Node) -> Graph:
    """Insert ``node`` just before ``anchor`` in execution order."""
    index = graph.nodes.index(anchor)
    return replace(graph, nodes=(*graph.nodes[:index], node, *graph.nodes[index:]))


def replace_node(graph: Graph, old: Node, new: Node) -> Graph:
    """Put ``new`` in the place of ``old``."""
    return replace(graph, nodes=tuple(new if n is old else n for n in graph.nodes))


def read_instead(graph: Graph, old: int, new: int, readers: Sequence[Node] | None = None) -> Graph:
    """The graph in which ``readers``, by default all that read tensor ``old``, read ``new``."""
    chosen = graph.users(old) if readers is None else readers
    nodes = tuple(
        replace(n, inputs=tuple(new if t == old else t for t in n.inputs)) if any(n is r for r in chosen) else n
        for n in graph.nodes
    )
    return replace(graph, nodes=nodes)


def bypassed(graph: Graph, node: Node, source: int) -> Graph:
    """The graph without ``node``, whose readers read ``source``."""
    return remove_node(read_instead(graph, node.outputs[0], source), node)


def own_constant(graph: Graph, node: Node, position: int) -> tuple[Graph, Node]:
    """Give ``node`` its own copy of a constant that other nodes read too; unchanged where it is alone."""
    t = node.inputs[position]
    if len(graph.users(t)) == 1 and node.inputs.count(t) == 1:
        return graph, node
    old = graph.tensors[t]
    graph, copy = add_tensor(graph, old.name, old.shape, old.dtype, old.data)
    inputs = tuple(copy if i == position else v for i, v in enumerate(node.inputs))
    new = replace(node, inputs=inputs)
    return replace_node(graph, node, new), new


def times_constant(graph: Graph, node: Node, position: int, factor: float | NDArray[Any]) -> tuple[Graph, Node]:
    """``node`` with the constant that it reads at ``position`` multiplied, for it alone."""
    graph, node = own_constant(graph, node, position)
    t = node.inputs[position]
    return with_constants(graph, {t: graph.constant(t) * np.asarray(factor, np.float32)}), node


def remove_node(graph: Graph, node: Node) -> Graph:
    """Take out a node whose outputs nobody reads, and those outputs."""
    tensors = {t: v for t, v in graph.tensors.items() if t not in node.outputs}
    return replace(graph, nodes=tuple(n for n in graph.nodes if n is not node), tensors=tensors)


def without_unread(graph: Graph) -> Graph:
    """Take out all nodes whose outputs nobody reads, and those that only they read."""
    wanted, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    if len(kept) == len(graph.nodes):
        return graph
    gone = {t for node in graph.nodes for t in node.outputs} - {t for node in kept for t in node.outputs}
    tensors = {t: v for t, v in graph.tensors.items() if t not in gone}
    return replace(graph, nodes=tuple(reversed(kept)), tensors=tensors)
