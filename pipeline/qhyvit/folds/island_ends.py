"""A channel scale where float hands over to int8: what a float op writes is divided before it is rounded.

A float tensor that layers read is rounded to one scale for all its channels. One more product in float, with 1 / r,
lets each channel have its own: the layers behind multiply their input channels by r.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.folds._fold import Fold, Place, on_int16_grid
from qhyvit.folds._scaling import CannotScaleError, Scaling, row_shape, solve, visit
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.work import FLOAT, work
from qhyvit.ops._elementwise import ElementwiseAttrs


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
    return len(node.outputs) == 1 and graph.in_float(node) and bool(users) and not any(map(graph.is_float, users))


def places(graph: Graph) -> list[Place]:
    """Every float result that goes into layers alone, through copies."""
    found = []
    for node in graph.nodes:
        t = node.outputs[0]
        shape = graph.tensors[t].shape
        if not _ends(graph, node) or len(shape) < 2 or shape[-1] < 2:
            continue
        try:
            _spread(graph, t, np.linspace(1.0, 2.0, shape[-1]))
        except CannotScaleError:
            continue
        adds = (work("MUL", "", (shape, row_shape(shape)), shape, (FLOAT, FLOAT)),)
        found.append(Place(graph.tensors[t].name, (t,), shape[-1], adds))
    return found


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
    factor = exact.astype(np.float32).reshape(row_shape(known.shape))
    graph, constant = edit.add_tensor(graph, f"{known.name}.scaled:factor", factor.shape, "FLOAT32", factor)
    graph, whole = edit.add_tensor(graph, f"{known.name}.whole", known.shape, known.dtype)
    product = Node("MUL", ElementwiseAttrs(), (whole, constant), (known.id,), node.block)
    graph = edit.insert_before(graph, node, replace(node, outputs=(whole,)))
    graph = edit.replace_node(graph, node, product)
    return replace(graph, floats=graph.floats | {whole})


FOLD = Fold("island_ends", "one scale a channel where float ends, by a product with a constant", places, apply)
