"""A channel scale where int8 hands over to float: what a layer writes for float readers is multiplied there.

A layer's result has one int8 scale, whatever its channels are. Read by float ops alone, it may be divided by r, which
the layer's weights take up, and multiplied by r in float.
"""

from __future__ import annotations

import numpy as np

from qhyvit.folds.shared.fold import Fold, Place, on_int16_grid
from qhyvit.folds.shared.scaling import CannotScaleError, Scaling, add_row, product_places, seeds, visit
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.elementwise import ElementwiseAttrs


def _starts(graph: Graph, layer: Node) -> bool:
    """Whether only float ops read what ``layer`` writes."""
    users = graph.users(layer.outputs[0])
    return bool(users) and all(u.in_island for u in users) and layer.outputs[0] not in graph.outputs


def _taken_up(graph: Graph, tensor: int, r: np.ndarray) -> Graph:
    """The layer that writes ``tensor`` with its outputs divided by ``r``.

    Raises:
        CannotScaleError: it can't do that.
    """
    scaling, layer = Scaling(graph), graph.producer(tensor)
    assert layer is not None
    scaling.tensors[tensor] = np.broadcast_to(r, graph.tensors[tensor].shape)
    visit(scaling, layer)
    return scaling.result()


def places(graph: Graph) -> list[Place]:
    """Every layer that only float ops read."""
    return product_places(graph, [n.outputs[0] for n in seeds(graph, ()) if _starts(graph, n)], _taken_up)


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Divide the layer's result by ``r`` [C], and multiply by it for the float ops.

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    known = graph.by_name.get(place.name)
    layer = None if known is None else graph.producer(known.id)
    if known is None or layer is None or not _starts(graph, layer):
        raise CannotScaleError(f"{place.name}: float does not start there any more")
    readers = graph.users(known.id)
    exact = on_int16_grid(r)
    graph = _taken_up(graph, known.id, exact)
    graph, constant = add_row(graph, f"{known.name}.restore:factor", exact, known.id)
    graph, whole = edit.add_tensor(graph, f"{known.name}.restored", known.shape, known.dtype)
    types = readers[0].reads, readers[0].writes
    product = Node("MUL", ElementwiseAttrs(), (known.id, constant), (whole,), layer.block, *types)
    graph = edit.insert_before(graph, readers[0], product)
    return edit.read_instead(graph, known.id, whole, readers)


FOLD = Fold("island_starts", "one scale a channel where float starts, by a product with a constant", places, apply)
