"""A channel scale that folds into the neighbours' weights without any new op.

Covers chains of convolutions with nothing or ReLU between them (cross-layer equalization), residual streams (one
common scale vector), and attention: v through attn @ v into the projection, q / s with k * s.
"""

from __future__ import annotations

import numpy as np

from qhyvit.folds.shared.fold import Fold, Place
from qhyvit.folds.shared.scaling import CannotScaleError, Scaling, scale_tensor, seeds, solve
from qhyvit.graph.ir import Graph


def _region(graph: Graph, tensor: int) -> tuple[int, ...] | None:
    """Tensors that would carry the scale with ``tensor``; None where it cannot be scaled."""
    channels = graph.tensors[tensor].shape[-1]
    scaling = Scaling(graph)
    try:
        scaling.want(tensor, np.linspace(1.0, 2.0, channels))
        solve(scaling)
        scaling.result()
    except CannotScaleError:
        return None
    return tuple(sorted(scaling.tensors))


def places(graph: Graph) -> list[Place]:
    """One place for each region that lets a scale through, seeded at the outputs of weighted ops."""
    found: list[Place] = []
    seen: set[int] = set()
    for node in seeds(graph, seen):
        tensor = node.outputs[0]
        region = _region(graph, tensor)
        if region is None:
            continue
        seen.update(region)
        found.append(Place(graph.tensors[tensor].name, (tensor,), graph.tensors[tensor].shape[-1]))
    return found


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Divide the place's tensor by ``r`` [C] and let the neighbours take it up.

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    return scale_tensor(graph, place.tensors[0], r)


FOLD = Fold("channel_scale", "one scale a channel, taken up by the neighbours' weights", places, apply)
