"""A convolution of a stride that the target lacks, with few results along that axis, as one convolution for each.

Vela takes strides up to 3. The border of an average pool is made of two rows that lie further apart.
"""

from __future__ import annotations

from dataclasses import replace

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass
from qhyvit.targets import Target

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
FEW = 4  # results along an axis
STRIDES = ("stride_h", "stride_w")


def _apart(graph: Graph, node: Node, axis: int) -> Graph:
    """``node`` as one convolution for each of its results along ``axis``, 1 or 2 of [N, H, W, C]."""
    source, out = graph.tensors[node.inputs[0]].shape, graph.tensors[node.outputs[0]].shape
    window = graph.tensors[node.inputs[1]].shape[axis]
    stride, chain, parts = getattr(node.attrs, STRIDES[axis - 1]), Chain(graph, node), []
    attrs = vars(replace(node.attrs, **{STRIDES[axis - 1]: 1}))
    for i in range(out[axis]):
        begin, size = [0] * 4, list(source)
        begin[axis], size[axis] = i * stride, window
        seen = chain.add("SLICE", node.inputs[0], chain.constant(begin), chain.constant(size))
        parts.append(chain.add(node.op, seen, *node.inputs[1:], **attrs))
    return chain.instead("CONCATENATION", *parts, axis=axis)


def apply(graph: Graph, target: Target | None = None) -> Graph:
    """Value-preserving: the same sums."""
    longest = None if target is None else target.longest_stride
    if longest is None:
        return graph
    for node in graph.nodes:
        if node.op not in CONVOLUTIONS or node.attrs.padding != "VALID":
            continue
        dilated = node.attrs.dilation_h_factor, node.attrs.dilation_w_factor
        for axis in (1, 2):
            far = getattr(node.attrs, STRIDES[axis - 1]) > longest
            if far and dilated[axis - 1] == 1 and graph.tensors[node.outputs[0]].shape[axis] <= FEW:
                graph = _apart(graph, node, axis)
                break
    return graph


PASS = Pass(
    "short_strides",
    "no stride beyond the target's where few results lie along it",
    apply,
    only=lambda target: target.longest_stride is not None,
    targeted=apply,
)
