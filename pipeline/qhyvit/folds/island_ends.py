"""A channel scale where float hands over to int8: what a float op writes is divided before it is rounded.

A float tensor that layers read is rounded to one scale for all its channels. One more product in float, with 1 / r,
lets each channel have its own: the layers behind multiply their input channels by r.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.folds.shared.fold import Fold, Place, on_int16_grid
from qhyvit.folds.shared.scaling import CannotScaleError, Scaling, add_row, product_places, solve, visit
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.elementwise import ElementwiseAttrs


def _spread(graph: Graph, tensor: int, r: np.ndarray) -> Graph:
    """The readers of ``tensor`` / r take r up.

    Raises:
        CannotScaleError: one of them can't.
    """
    scaling = Scaling(graph)
    scaling.tensors[tensor] = np.broadcast_to(r, graph.tensors[tensor].shape)
    for user in graph.users(tensor):
        visit(scaling, user)
    solve(scaling)
    if tensor in graph.outputs or scaling.scale_of(tensor) is None:
        raise CannotScaleError(f"{graph.tensors[tensor].name} is an output of the model")
    return scaling.result()


def _ends(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is float and only int8 ops read what it writes."""
    users = [u for t in node.outputs for u in graph.users(t)]
    return len(node.outputs) == 1 and node.in_island and bool(users) and all(u.is_int8 for u in users)


def places(graph: Graph) -> list[Place]:
    """Every float result that goes into layers alone, through copies."""
    found = []
    for node in graph.nodes:
        shape = graph.tensors[node.outputs[0]].shape
        if _ends(graph, node) and len(shape) > 1 and shape[-1] > 1:
            found.append(node.outputs[0])
    return product_places(graph, found, _spread)


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Divide the place's tensor by ``r`` [C] in float.

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    known = graph.by_name.get(place.name)
    node = None if known is None else graph.producer(known.id)
    if known is None or node is None or not _ends(graph, node):
        raise CannotScaleError(f"{place.name}: no float op ends there any more")
    exact = on_int16_grid(1.0 / np.asarray(r, np.float64))
    graph = _spread(graph, known.id, 1.0 / exact)
    graph, constant = add_row(graph, f"{known.name}.scaled:factor", exact, known.id)
    graph, whole = edit.add_tensor(graph, f"{known.name}.whole", known.shape, known.dtype)
    product = Node("MUL", ElementwiseAttrs(), (whole, constant), (known.id,), node.block, node.reads, node.writes)
    graph = edit.insert_before(graph, node, replace(node, outputs=(whole,)))
    return edit.replace_node(graph, node, product)


FOLD = Fold("island_ends", "one scale a channel where float ends, by a product with a constant", places, apply)
