"""Weights of four bits: which layers a kernel takes them in, and 1x1 convolutions as such layers.

XNNPACK has int4 weights beside static int8 activations in FULLY_CONNECTED alone, for an even number of inputs; every
other op that holds them runs in a builtin kernel, which unpacks them first. Codes leave out -8 as those of int8 leave
out -128: kernels for processors without dot products shift them into the upper half of a byte.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.conv_2d import Conv2DAttrs
from qhyvit.ops.fully_connected import FullyConnectedAttrs


def takes_int4(graph: Graph, node: Node) -> bool:
    """Whether XNNPACK has a kernel for ``node`` with int4 weights."""
    if node.op != "FULLY_CONNECTED" or not node.is_int8 or node.in_island:
        return False
    weight = graph.tensors[node.inputs[1]]
    return weight.is_constant and len(weight.shape) == 2 and weight.shape[1] % 2 == 0


def is_pointwise(graph: Graph, node: Node) -> bool:
    """Whether ``node`` is a convolution that multiplies each position by one matrix."""
    if node.op != "CONV_2D" or not isinstance(node.attrs, Conv2DAttrs):
        return False
    source, weight = (graph.tensors[t] for t in node.inputs[:2])
    alone = weight.is_constant and len(graph.users(weight.id)) == 1
    steps = (node.attrs.stride_h, node.attrs.stride_w)
    return alone and weight.shape[1:] == (1, 1, source.shape[3]) and steps == (1, 1)


def as_linear(graph: Graph, node: Node) -> Graph:
    """The graph with a pointwise convolution as FULLY_CONNECTED: the same tensors, the weight as [O, I]."""
    weight = graph.tensors[node.inputs[1]]
    flat = replace(weight, shape=(weight.shape[0], weight.shape[3]),
                   data=np.ascontiguousarray(graph.constant(weight.id).reshape(weight.shape[0], -1)))  # fmt: skip
    attrs = FullyConnectedAttrs(node.attrs.fused_activation_function, keep_num_dims=True)
    graph = replace(graph, tensors={**graph.tensors, weight.id: flat})
    return edit.replace_node(graph, node, replace(node, op="FULLY_CONNECTED", attrs=attrs))


def may_take_int4(graph: Graph, node: Node) -> bool:
    """Whether ``node``, or the linear that it can be, takes int4 weights."""
    if is_pointwise(graph, node):
        return node.is_int8 and not node.in_island and graph.tensors[node.inputs[1]].shape[3] % 2 == 0
    return takes_int4(graph, node)
