"""A stem convolution of stride 2 reads pairs of pixels: [1, H, W, I] seen as [1, H, W / 2, 2 I], stride 1 across.

XNNPACK's int8 convolution takes eight input channels at a time and pads what is missing: of 3 channels, 5 of 8 products
are wasted. A kernel row of three pixels lies in two pairs, so 3 x 3 steps of eight become 3 x 2: three quarters of the
time. In memory a pair is two neighbours: the view is a RESHAPE, which copies the image once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops._conv import same_pads
from qhyvit.ops._spec import NoAttrs
from qhyvit.ops.reshape import ReshapeAttrs
from qhyvit.rewrites._rewrite import Rewrite

FEW_CHANNELS = 4  # a pair of them still fits into eight
Pads = tuple[tuple[int, int], tuple[int, int]]  # of rows and columns, before and after


@dataclass(frozen=True)
class _Stem:
    """A convolution, the map that it reads behind its padding, and the padding."""

    node: Node
    source: int
    pads: Pads


def _stem(graph: Graph, node: Node) -> _Stem | None:
    """``node`` as a stem that can read pairs; None where it can't."""
    attrs: Any = node.attrs
    if node.op != "CONV_2D" or attrs.stride_w != 2 or attrs.dilation_w_factor != 1:
        return None
    shape, weight = graph.tensors[node.inputs[0]].shape, graph.tensors[node.inputs[1]]
    if weight.data is None or weight.shape[3] != shape[3] or shape[3] > FEW_CHANNELS:
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
    node, source = stem.node, graph.tensors[stem.source]
    _, height, width, channels = source.shape
    weight, name = graph.tensors[node.inputs[1]], source.name
    down, across = stem.pads
    pairs, left, right = _columns(width, weight.shape[2], across)
    if width % 2 or right < 0:
        return graph
    shape = np.array([1, height, width // 2, 2 * channels], np.int32)
    graph, shape_id = edit.add_tensor(graph, f"{name}.pairs:shape", shape.shape, "INT32", shape)
    graph, read = edit.add_tensor(graph, f"{name}.pairs", tuple(shape), source.dtype)
    graph = edit.insert_before(graph, node, Node("RESHAPE", ReshapeAttrs(), (source.id, shape_id), (read,), node.block))
    pads = np.array([[0, 0], down, [left, right], [0, 0]], np.int32)
    if pads.any():
        graph, pads_id = edit.add_tensor(graph, f"{name}.padded:pads", pads.shape, "INT32", pads)
        padded_shape = tuple(int(s) for s in shape + pads.sum(axis=1))
        graph, padded = edit.add_tensor(graph, f"{name}.padded", padded_shape, source.dtype)
        graph = edit.insert_before(graph, node, Node("PAD", NoAttrs(), (read, pads_id), (padded,), node.block))
        read = padded
    data = _paired(graph.constant(weight.id), across[0], pairs)
    graph, wide = edit.add_tensor(graph, f"{weight.name}.pairs", data.shape, weight.dtype, data)
    attrs = replace(node.attrs, padding="VALID", stride_w=1)
    made = graph.producer(node.inputs[0])
    graph = edit.replace_node(graph, node, replace(node, attrs=attrs, inputs=(read, wide, *node.inputs[2:])))
    unread = made is not None and made.op == "PAD" and not graph.users(made.outputs[0])
    return edit.remove_node(graph, made) if made is not None and unread else graph


def apply(graph: Graph) -> Graph:
    """Value-preserving: the same products, and some with zero."""
    for node in graph.nodes:
        stem = _stem(graph, node)
        if stem is not None:
            graph = _in_pairs(graph, stem)
    return graph


REWRITE = Rewrite("pixel_pairs", "stems of stride 2 read pairs of pixels", apply)
