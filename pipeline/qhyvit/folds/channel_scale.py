"""A channel scale that folds into the neighbours' weights without any new op.

Covers chains of convolutions with nothing or ReLU between them (cross-layer equalization), residual streams (one
common scale vector), and attention: v through attn @ v into the projection, q / s with k * s.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhyvit.folds._fold import COPIES, Fold, Place
from qhyvit.folds._scaling import CannotScaleError, Scaling, scale_tensor, seeds
from qhyvit.graph.ir import Graph


def _region(graph: Graph, tensor: int, r: np.ndarray) -> dict[int, np.ndarray] | None:
    """Tensors that would carry the scale ``r`` [C] of ``tensor``, and in what shape; None where it cannot be scaled."""
    scaling = Scaling(graph)
    try:
        scaling.want(tensor, r)
        scaling.solve()
        scaling.result()
    except CannotScaleError:
        return None
    return scaling.tensors


def _has_scale(shaped: np.ndarray, r: np.ndarray) -> bool:
    """Whether a tensor's scale, in its full shape, is ``r`` along the last axis and nothing else."""
    rows = shaped.reshape(-1, shaped.shape[-1])
    return rows.shape[-1] == len(r) and bool((rows == r).all())


def _gaining(graph: Graph, seed: int, region: Mapping[int, np.ndarray], r: np.ndarray) -> tuple[int, ...]:
    """The seed, then what else of the region is rounded and has ``r`` on its channels: sums, products with others.

    The last one is what r is made for: of a residual stream the deepest sum, else what lies nearest to the readers.
    """
    others = [
        n for n in graph.nodes
        if n.outputs[0] in region and n.outputs[0] != seed and n.outputs[0] not in graph.floats
        and n.op not in COPIES and _has_scale(region[n.outputs[0]], r)
    ]  # fmt: skip
    deepest = ([n for n in others if n.op == "ADD"] or others)[-1:]
    return (seed, *(n.outputs[0] for n in others if n not in deepest), *(n.outputs[0] for n in deepest))


def places(graph: Graph) -> list[Place]:
    """One place for each region that lets a scale through, seeded at the outputs of weighted ops."""
    found: list[Place] = []
    seen: set[int] = set()
    for node in seeds(graph, seen):
        tensor = node.outputs[0]
        r = np.linspace(1.0, 2.0, graph.tensors[tensor].shape[-1])
        region = _region(graph, tensor, r)
        if region is None:
            continue
        seen.update(region)
        found.append(Place(graph.tensors[tensor].name, _gaining(graph, tensor, region, r), len(r)))
    return found


def apply(graph: Graph, place: Place, r: np.ndarray) -> Graph:
    """Divide the place's tensor by ``r`` [C] and let the neighbours take it up.

    Raises:
        CannotScaleError: the place does not fit the graph any more.
    """
    return scale_tensor(graph, place.tensors[0], r)


FOLD = Fold("channel_scale", "one scale a channel, taken up by the neighbours' weights", places, apply)
