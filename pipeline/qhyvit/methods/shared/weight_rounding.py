"""Scales of weights: the shrink of each output channel's maximum with the least error at the layer's own output."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhyvit import affine
from qhyvit.graph.ir import Graph
from qhyvit.methods.shared.ranges import weight_quant, weight_scales
from qhyvit.ops.shared.layer import Layer, layers
from qhyvit.plan import TensorQuant

SHRINKS = np.linspace(0.5, 1.0, 51)


def _input_energy(layer: Layer, energy: np.ndarray | None) -> np.ndarray:
    """Weight of each element's squared rounding error: its input channel's mean square, in the weight's shape."""
    found = None if energy is None or not layer.mixes_channels else layer.along_data(energy)
    return np.ones(layer.weight_shape) if found is None else found


def search_weight(data: np.ndarray, axis: int, energy: np.ndarray, bits: int = 8) -> np.ndarray:
    """Best scale of each output channel, [O]; ``energy`` has the shape of ``data``."""
    w = np.moveaxis(data.astype(np.float64), axis, 0).reshape(data.shape[axis], -1)
    e = np.moveaxis(energy, axis, 0).reshape(w.shape)
    top = affine.grid(bits).qmax
    best = np.full(len(w), np.inf)
    chosen = np.ones(len(w))
    for shrink in SHRINKS[::-1]:
        scale = weight_scales(data, axis, shrink, bits)
        codes = np.clip(np.rint(w / scale[:, None]), -top, top)
        error = (e * (w - codes * scale[:, None]) ** 2).sum(axis=1)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, shrink, chosen)
    return weight_scales(data, axis, chosen, bits)


def search_weights(graph: Graph, energies: Mapping[int, np.ndarray], bits: int = 8) -> dict[str, TensorQuant]:
    """All weights of a graph; ``energies``: mean square a channel of the tensors that they read, by id."""
    found = {}
    for layer in layers(graph):
        energy = _input_energy(layer, energies.get(layer.data))
        scale = search_weight(graph.constant(layer.weight), layer.axis, energy, bits)
        found[graph.tensors[layer.weight].name] = weight_quant(scale, layer.axis, "hessian", bits)
    return found
