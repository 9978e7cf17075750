"""A convolution with few outputs makes two pixels at once: [1, H, W, O] as [1, H, W / 2, 2 O], twice the stride.

XNNPACK's matrix kernels make sixteen outputs at a time: of eight, half of each step is wasted. Two neighbours read
taps + stride columns together, fewer than twice the taps where windows overlap; each has zeros where only the other
reads. In memory both are one after the other: the view is a RESHAPE, which copies the small map once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import SIZES, Sizes
from qhyvit.ops.shared.chain import Chain
from qhyvit.passes.shared.graph_pass import Pass


def _suits(graph: Graph, node: Node, lanes: int) -> bool:
    """Whether ``node`` is a convolution for which two pixels at once are less work than two times one."""
    attrs: Any = node.attrs
    if node.op != "CONV_2D" or attrs.padding != "VALID" or attrs.dilation_w_factor != 1:
        return False
    weight, out = graph.tensors[node.inputs[1]], graph.tensors[node.outputs[0]].shape
    dense = weight.data is not None and weight.shape[3] == graph.tensors[node.inputs[0]].shape[3]
    return dense and 2 * out[3] <= lanes and out[2] % 2 == 0 and attrs.stride_w < weight.shape[2]


def _twice(weight: np.ndarray, stride: int) -> np.ndarray:
    """[O, kh, kw, I] as [2 O, kh, kw + stride, I]: of the first pixel, then of its right neighbour."""
    first = np.pad(weight, ((0, 0), (0, 0), (0, stride), (0, 0)))
    return np.concatenate([first, np.roll(first, stride, axis=2)])


def _in_pairs(graph: Graph, node: Node) -> Graph:
    attrs, out, (read, weight, *bias) = vars(node.attrs), graph.tensors[node.outputs[0]].shape, node.inputs
    stride, chain = attrs["stride_w"], Chain(graph, node)
    weights = chain.constant(_twice(graph.constant(weight), stride))
    biases = [chain.constant(np.tile(graph.constant(t), 2)) for t in bias if t >= 0]
    made = chain.add("CONV_2D", read, weights, *biases, **{**attrs, "stride_w": 2 * stride})
    return chain.instead("RESHAPE", made, chain.constant(out), new_shape=out)


def apply(graph: Graph, sizes: Sizes = SIZES) -> Graph:
    """Value-preserving: the same products, and some with zero."""
    for node in graph.nodes:
        if _suits(graph, node, sizes.lanes):
            graph = _in_pairs(graph, node)
    return graph


PASS = Pass(
    "output_pairs", "convolutions with few outputs make two pixels at once", apply, after=("pixel_pairs",), sized=apply
)
