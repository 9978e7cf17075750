"""A layer whose channels are divided by a SPLIT becomes a layer for each part: each has a scale of its own then.

One layer for query, key and value is the usual form, and a float graph is shorter by it; as int8 its result has one
scale for three tensors that have little in common. Between the layer and the SPLIT may lie a RESHAPE that takes the
channels apart, and a TRANSPOSE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.passes.shared.graph_pass import Pass

LAYERS = ("FULLY_CONNECTED", "CONV_2D")


@dataclass(frozen=True)
class _Merged:
    """``copies``: what lies between the layer and the SPLIT, in order; ``axes``: the divided axis of each result."""

    layer: Node
    copies: tuple[Node, ...]
    axes: tuple[int, ...]
    split: Node


def _axis_before(graph: Graph, node: Node, axis: int) -> int | None:
    """The axis of what a copy reads that becomes ``axis`` of what it gives, whole or as its slowest part."""
    if node.op == "TRANSPOSE":
        return int(graph.constant(node.inputs[1])[axis])
    before, after = (graph.tensors[t].shape for t in (node.inputs[0], node.outputs[0]))
    inner = math.prod(after[axis:])
    for position, size in enumerate(before):
        if math.prod(before[position:]) == inner and size % after[axis] == 0:
            return position
    return None


def _merged(graph: Graph, split: Node) -> _Merged | None:
    tensor, parts = split.inputs[1], split.attrs.num_splits
    axis = int(graph.constant(split.inputs[0]).item()) % len(graph.tensors[tensor].shape)
    copies: list[Node] = []
    axes: list[int] = []
    while True:
        node = graph.producer(tensor)
        if node is None or len(graph.users(tensor)) > 1 or tensor in graph.outputs:
            return None
        if node.op in LAYERS:
            break
        before = _axis_before(graph, node, axis) if node.op in ("RESHAPE", "TRANSPOSE") else None
        if before is None:
            return None
        copies.insert(0, node)
        axes.insert(0, axis)
        tensor, axis = node.inputs[0], before
    whole, weight = graph.tensors[tensor].shape, graph.tensors[node.inputs[1]]
    plain = weight.is_constant and node.attrs.fused_activation_function == "NONE" and axis == len(whole) - 1
    grouped = node.op == "CONV_2D" and weight.shape[3] != graph.tensors[node.inputs[0]].shape[3]
    fits = plain and not grouped and whole[-1] % parts == 0
    return _Merged(node, tuple(copies), tuple(axes), split) if fits else None


def _part(graph: Graph, merged: _Merged, number: int) -> Graph:
    """One part's layer and copies, in front of the SPLIT."""
    layer, parts, out = merged.layer, merged.split.attrs.num_splits, merged.split.outputs[number]
    shape = graph.tensors[layer.outputs[0]].shape
    channels = shape[-1] // parts
    inputs = [layer.inputs[0]]
    for t in layer.inputs[1:]:
        if t >= 0:
            old = graph.tensors[t]
            data = np.ascontiguousarray(graph.constant(t)[number * channels : (number + 1) * channels])
            graph, t = edit.add_tensor(graph, f"{old.name}.part{number}", data.shape, old.dtype, data)
        inputs.append(t)
    chain = [replace(layer, inputs=tuple(inputs)), *merged.copies]
    previous = -1
    for position, node in enumerate(chain):
        whole = graph.tensors[node.outputs[0]]
        axis = merged.axes[position - 1] if position else len(shape) - 1
        size = tuple(n // parts if a == axis else n for a, n in enumerate(whole.shape))
        if position == len(chain) - 1:
            made = out
        else:
            graph, made = edit.add_tensor(graph, f"{whole.name}.part{number}", size, whole.dtype)
        if previous >= 0:
            node = replace(node, inputs=(previous, *node.inputs[1:]))
        if node.op == "RESHAPE":
            data = np.array(size, np.int32)
            graph, target = edit.add_tensor(graph, f"{whole.name}.part{number}:shape", data.shape, "INT32", data)
            node = replace(node, attrs=replace(node.attrs, new_shape=size), inputs=(node.inputs[0], target))
        graph = edit.insert_before(graph, merged.split, replace(node, outputs=(made,)))
        previous = made
    return graph


def apply(graph: Graph) -> Graph:
    """Value-preserving: every channel is computed as before."""
    for split in graph.nodes:
        merged = _merged(graph, split) if split.op == "SPLIT" else None
        if merged is None:
            continue
        for number in range(split.attrs.num_splits):
            graph = _part(graph, merged, number)
        graph = replace(graph, nodes=tuple(n for n in graph.nodes if n is not split))
        for node in (*reversed(merged.copies), merged.layer):
            graph = edit.remove_node(graph, node)
    return graph


PASS = Pass("own_layers", "layers whose channels are divided become a layer for each part", apply)
