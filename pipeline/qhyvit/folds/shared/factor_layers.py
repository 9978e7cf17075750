"""Factors of channels as layers: an NPU reads a layer's weights once, and the constant of a product again and again."""

from __future__ import annotations

import math

import numpy as np

from qhyvit.folds.shared.scale import last_axis
from qhyvit.folds.shared.scaling import CannotScaleError
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.spec import FusedActivation


def as_layers(graph: Graph, least: int) -> Graph:
    """Int8 products of a map of ``least`` elements or more with a factor a channel as depthwise 1 x 1 convolutions."""
    for node in graph.nodes:
        factor = _factor(graph, node, least) if node.op == "MUL" and node.is_int8 else None
        if factor is not None:
            chain = Chain(graph, node)
            constants = chain.constant(factor.reshape(1, 1, 1, -1)), chain.constant(np.zeros(len(factor)))
            graph = chain.instead("DEPTHWISE_CONV_2D", node.inputs[0], *constants, padding="VALID")
    return graph


def _factor(graph: Graph, node: Node, least: int) -> np.ndarray | None:
    """What a product multiplies each channel of a large map by, [C]; None where it is no such product."""
    x, constant, out = (graph.tensors[t] for t in (*node.inputs, *node.outputs))
    is_map = len(out.shape) == 4 and x.shape == out.shape and math.prod(out.shape) >= least
    if not is_map or constant.data is None or node.attrs.fused_activation_function != FusedActivation.NONE:
        return None
    try:
        return last_axis(np.broadcast_to(constant.data, out.shape), constant.name)
    except CannotScaleError:
        return None
