"""A stem convolution of stride 2 reads pairs of pixels: [1, H, W, I] seen as [1, H, W / 2, 2 I], stride 1 across.

XNNPACK's int8 convolution takes eight input channels at a time and pads what is missing: of 3 channels, 5 of 8 products
are wasted. A kernel row of three pixels lies in two pairs, so 3 x 3 steps of eight become 3 x 2: three quarters of the
time. In memory a pair is two neighbours: the view is a RESHAPE, which copies the image once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import SIZES, Sizes
from qhyvit.ops.shared.chain import Chain
from qhyvit.ops.shared.conv import same_pads
from qhyvit.passes.shared.graph_pass import Pass

Pads = tuple[tuple[int, int], tuple[int, int]]  # of rows and columns, before and after


@dataclass(frozen=True)
class _Stem:
    """A convolution, the map that it reads behind its padding, and the padding."""

    node: Node
    source: int
    pads: Pads


def _stem(graph: Graph, node: Node, at_once: int) -> _Stem | None:
    """``node`` as a stem that can read pairs; None where it can't."""
    attrs: Any = node.attrs
    if node.op != "CONV_2D" or attrs.stride_w != 2 or attrs.dilation_w_factor != 1:
        return None
    shape, weight = graph.tensors[node.inputs[0]].shape, graph.tensors[node.inputs[1]]
    if weight.data is None or weight.shape[3] != shape[3] or 2 * shape[3] > at_once:
        return None
    if attrs.padding == "SAME":
        down = same_pads(shape[1], weight.shape[1], attrs.stride_h, attrs.dilation_h_factor)
        return _Stem(node, node.inputs[0], (down, same_pads(shape[2], weight.shape[2], 2, 1)))
    made = graph.producer(node.inputs[0])
    if made is None or made.op != "PAD":
        return _Stem(node, node.inputs[0], ((0, 0), (0, 0)))
    batch, down, across, channels = ((int(a), int(b)) for a, b in graph.constant(made.inputs[1]))
    return None if any((*batch, *channels)) else _Stem(node, made.inputs[0], (down, across))


def _columns(width: int, kernel: int, pads: tuple[int, int]) -> tuple[int, int, int]:
    """Pairs that a window spans, and pairs of zeros before and after; the latter negative where it cannot be done."""
    first, last = -pads[0] // 2, (kernel - 1 - pads[0]) // 2  # pairs of a window's ends, from the output's own
    outputs = (width + sum(pads) - kernel) // 2 + 1
    return last - first + 1, -first, outputs + last - width // 2


def _paired(weight: np.ndarray, left: int, pairs: int) -> np.ndarray:
    """[O, kh, kw, I] as [O, kh, pairs, 2 I], ``left`` pixels of padding before the first output's own."""
    outputs, rows, taps, channels = weight.shape
    start = 2 * (-(-left // 2)) - left  # of the window in its first pair
    pixels = np.zeros((outputs, rows, 2 * pairs, channels), weight.dtype)
    pixels[:, :, start : start + taps] = weight
    return pixels.reshape(outputs, rows, pairs, 2 * channels)


def _in_pairs(graph: Graph, stem: _Stem) -> Graph:
    node, weight, (down, across) = stem.node, graph.constant(stem.node.inputs[1]), stem.pads
    images, height, width, channels = graph.tensors[stem.source].shape
    pairs, left, right = _columns(width, weight.shape[2], across)
    if width % 2 or right < 0:
        return graph
    chain, pads = Chain(graph, node), [[0, 0], down, [left, right], [0, 0]]
    read = chain.reshape(stem.source, images, height, width // 2, 2 * channels)
    if np.any(pads):
        read = chain.add("PAD", read, chain.constant(pads))
    wide = chain.constant(_paired(weight, across[0], pairs))
    attrs = {**vars(node.attrs), "padding": "VALID", "stride_w": 1}
    return chain.instead("CONV_2D", read, wide, *node.inputs[2:], **attrs)


def apply(graph: Graph, sizes: Sizes = SIZES) -> Graph:
    """Value-preserving: the same products, and some with zero."""
    for node in graph.nodes:
        stem = _stem(graph, node, sizes.channels)
        if stem is not None:
            graph = _in_pairs(graph, stem)
    return graph


PASS = Pass("pixel_pairs", "stems of stride 2 read pairs of pixels", apply, sized=apply)
