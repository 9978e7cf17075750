"""Small graphs with something to do for every pass, and the passes for limits that such graphs are beyond."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import FLOAT, INT16, Graph, Node
from qhyvit.latency.profile import Sizes
from qhyvit.ops import spec
from qhyvit.passes import all_passes
from qhyvit.targets import target
from tests._graphs import PIECES as SIMPLE
from tests._graphs import Builder, Piece
from tests.test_passes_values import FORMS

# what every pass is for, however small: limits that a map of 4 x 4 x 6 is beyond
SIZES = Sizes(columns=1, few_rows=4, many_rows=16, cached=1)
SMALL = replace(target("ethos-u55"), longest_mean=12, longest_stride=1, longest_product=20, largest_transpose=11)
EDITS: dict[str, Callable[[Graph], Graph | None]] = {
    name: partial(p.apply, sizes=SIZES) if p.sized else p.edit(SMALL).apply for name, p in all_passes().items()
}


def _unfold(b: Builder, x: int) -> int:
    turned = b.add("TRANSPOSE", b.reshape(x, 2, 2, 2, 2, 6), b.integers(1, 3, 0, 2, 4))
    return b.reshape(turned, 4, 4, 6)


def _fold(b: Builder, x: int) -> int:
    return b.reshape(b.add("TRANSPOSE", b.reshape(x, 2, 2, 2, 2, 6), b.integers(2, 0, 3, 1, 4)), 1, 4, 4, 6)


def _images(b: Builder, x: int) -> int:
    """Patches as images of their own, by the ops for it."""
    block = b.integers(2, 2)
    pads, crops = (b.tensor(n, (2, 2), "INT32", np.array([[0, 2], [2, 0]], np.int32)) for n in ("pads", "crops"))
    return b.add("BATCH_TO_SPACE_ND", b.add("RELU", b.add("SPACE_TO_BATCH_ND", x, block, pads)), block, crops)


def _heads(b: Builder, x: int) -> int:
    """Query, key and value of one layer, each head an image of its own, and their attention."""
    t = b.linear(b.tokens(x), 24)
    t = b.add("TRANSPOSE", b.reshape(t, 16, 12, 2), b.integers(1, 0, 2))
    axis = b.tensor("axis", (), "INT32", np.array(0, np.int32))
    parts = tuple(b.tensor("part", (4, 16, 2)) for _ in range(3))
    b.nodes.append(Node("SPLIT", spec("SPLIT").attrs(num_splits=3), (axis, t), parts))
    query, key, value = parts
    return b.add("BATCH_MATMUL", b.add("SOFTMAX", b.add("BATCH_MATMUL", query, key, adj_y=True)), value)


def _thirds(b: Builder, x: int) -> int:
    parts = [b.add("SLICE", x, b.integers(0, 0, 0, i), b.integers(1, 4, 4, 2)) for i in (0, 2, 4)]
    return b.add("ADD", b.add("MUL", parts[0], parts[2]), parts[1])


def _with_ones(b: Builder, x: int) -> int:
    """Columns of a product whose right operand is padded with ones, and the column of the ones."""
    t = b.tokens(x)
    pads = b.tensor("pads", (3, 2), "INT32", np.array([[0, 0], [0, 0], [0, 1]], np.int32))
    padded = b.add("PADV2", t, pads, b.tensor("one", (), data=np.array(1, np.float32)))
    both = b.add("BATCH_MATMUL", t, b.add("BATCH_MATMUL", t, padded, adj_x=True))
    over = b.add("SLICE", both, b.integers(0, 0, 0), b.integers(1, 16, 6))
    return b.add("ADD", over, b.add("SLICE", both, b.integers(0, 0, 6), b.integers(1, 16, 1)))


def _sample_norm(b: Builder, x: int, eps: float = 0.1) -> int:
    row = b.reshape(b.add("TRANSPOSE", x, b.integers(0, 3, 1, 2)), 1, 1, 96)
    centre = b.add("SUB", row, b.add("MEAN", row, b.integers(2), keep_dims=True))
    variance = b.add("MEAN", b.add("MUL", centre, centre), b.integers(2), keep_dims=True)
    variance = b.add("ADD", variance, b.constant(1, 1, 1, low=eps)) if eps else variance
    root = b.add("RSQRT", variance)
    return b.add("TRANSPOSE", b.reshape(b.add("MUL", centre, root), 1, 6, 4, 4), b.integers(0, 2, 3, 1))


def _between_turns(b: Builder, x: int) -> int:
    t = b.add("TRANSPOSE", x, b.integers(0, 3, 1, 2))
    t = b.add("MUL", t, b.add("LOGISTIC", b.add("ADD", t, b.constant(6, 1, 1))))
    return b.add("TRANSPOSE", t, b.integers(0, 2, 3, 1))


def _row(b: Builder, x: int) -> int:
    row = b.reshape(x, 1, 1, 96)
    return b.add("MUL", row, b.add("RSQRT", b.add("BATCH_MATMUL", row, row, adj_y=True)))


def _with_ones_in_front(b: Builder, x: int) -> int:
    mean = b.add("MEAN", b.tokens(x), b.integers(1), keep_dims=False)
    return b.add("MUL", x, b.reshape(mean, 1, 1, 1, 6))


def _of_two_rows(b: Builder, x: int) -> int:
    t = b.reshape(x, 16, 6)
    few = b.add("SLICE", t, b.integers(2, 0), b.integers(3, 6))
    return b.add("BATCH_MATMUL", few, t, adj_y=True)


def _softmax_on_the_right(b: Builder, x: int) -> int:
    t = b.tokens(x)
    weights = b.add("SOFTMAX", b.add("BATCH_MATMUL", t, t, adj_y=True))
    return b.add("BATCH_MATMUL", b.add("TRANSPOSE", t, b.integers(0, 2, 1)), weights)


def _shared_sum(b: Builder, x: int) -> int:
    """A sum, moved, on the right of a product, whose left it is as well."""
    t = b.tokens(b.add("ADD", x, b.as_wide_as(x)))
    return b.add("BATCH_MATMUL", b.add("TANH", t), b.add("TRANSPOSE", t, b.integers(0, 2, 1)))


def _prelu(b: Builder, x: int) -> int:
    minus = b.tensor("minus", (), data=np.array(-1, np.float32))
    alpha = b.tensor("alpha", (1, 1, 6), data=np.linspace(-1.5, 1, 6, dtype=np.float32).reshape(1, 1, 6))
    below = b.add("MUL", x, minus, fused_activation_function="RELU")
    return b.add("SUB", b.add("RELU", x), b.add("MUL", below, alpha))


def _twins(b: Builder, x: int) -> int:
    c = b.constant(6)
    return b.add("MUL", b.add("TANH", b.add("SUB", x, c)), b.add("SUB", x, c))


def _product(rank: int, adj_x: bool, adj_y: bool) -> Piece:
    """Three rows times sixteen, each operand as it is or turned."""

    def piece(b: Builder, x: int) -> int:
        ones = (1,) * (rank - 2)
        rows = b.reshape(x, *ones, 16, 6)
        few = b.add("SLICE", rows, b.integers(*(0,) * (rank - 1), 0), b.integers(*ones, 3, 6))
        swap = b.integers(*range(rank - 2), rank - 1, rank - 2)
        left = b.add("TRANSPOSE", few, swap) if adj_x else few
        right = rows if adj_y else b.add("TRANSPOSE", rows, swap)
        return b.add("BATCH_MATMUL", left, b.add("TANH", right), adj_x=adj_x, adj_y=adj_y)

    return piece


def _few_columns(b: Builder, x: int) -> int:
    """Six columns of three rows times sixteen rows of three."""
    few = b.add("SLICE", b.reshape(x, 16, 6), b.integers(0, 0), b.integers(3, 6))
    return b.add("BATCH_MATMUL", few, b.reshape(b.input, 16, 3), adj_x=True, adj_y=True)


def _many_columns(b: Builder, x: int) -> int:
    """Three rows of sixteen times six columns of them."""
    few = b.add("TRANSPOSE", b.reshape(b.input, 16, 3), b.integers(1, 0))
    return b.add("BATCH_MATMUL", few, b.reshape(x, 16, 6))


def _factor_of_both(b: Builder, x: int) -> int:
    t = b.add("MUL", b.reshape(x, 16, 6), b.constant(6))
    return b.add("FULLY_CONNECTED", t, t, -1)


def _turned_and_flat(b: Builder, x: int) -> int:
    """Two TRANSPOSEs that go, and one whose order a linear sees."""
    first = b.add("TRANSPOSE", b.add("TANH", b.add("TRANSPOSE", x, b.integers(0, 3, 1, 2))), b.integers(0, 2, 3, 1))
    return b.linear(b.reshape(b.add("TRANSPOSE", first, b.integers(0, 3, 1, 2)), 1, 96), 5)


def _padded_channels(b: Builder, x: int) -> int:
    pads = b.tensor("pads", (4, 2), "INT32", np.array([[0, 0], [0, 0], [0, 0], [1, 2]], np.int32))
    return b.conv(b.add("PAD", b.add("GATHER", b.input, b.integers(2, 0, 1), axis=3), pads), 5, 3)


def _taps(term: str) -> Piece:
    """A factor or a term a channel in front of a depthwise convolution."""

    def piece(b: Builder, x: int) -> int:
        y = b.add(term, b.add("TANH", x), b.constant(6))
        return b.add("DEPTHWISE_CONV_2D", y, b.constant(1, 2, 3, 6), b.constant(6), padding="VALID")

    return piece


def _sum_on_the_right(b: Builder, x: int) -> int:
    t = b.add("ADD", b.tokens(x), b.constant(16, 6))
    return b.add("BATCH_MATMUL", b.add("TANH", t), t, adj_y=True)


def _between_linears(b: Builder, x: int) -> int:
    """What a layer gives is read by a sum with a constant and by other linears."""
    y = b.linear(x, 5)
    return b.add("MUL", b.add("ADD", y, b.constant(5)), b.add("ADD", b.linear(y, 5), b.add("TANH", b.linear(y, 5))))


def _turned_twice(b: Builder, x: int) -> int:
    """A TRANSPOSE behind a TRANSPOSE that it does not undo, and one that it does."""
    t = b.add("TRANSPOSE", b.add("TRANSPOSE", x, b.integers(0, 3, 1, 2)), b.integers(0, 3, 1, 2))
    return b.add("TRANSPOSE", b.add("TRANSPOSE", b.add("TANH", t), b.integers(0, 3, 2, 1)), b.integers(0, 3, 2, 1))


WHOLE: dict[str, Piece] = {
    "unfold": _unfold, "fold": _fold, "images": _images, "heads": _heads, "thirds": _thirds, "ones": _with_ones,
    "sample norm": _sample_norm, "between turns": _between_turns, "row": _row, "few rows": _of_two_rows,
    "ones in front": _with_ones_in_front, "softmax on the right": _softmax_on_the_right, "shared sum": _shared_sum,
    "prelu": _prelu, "stem": lambda b, x: b.conv(b.input, 5, 3, stride_w=2, stride_h=2, padding="SAME"),
    "pairs": lambda b, x: b.conv(x, 5, 3, padding="VALID"),
    "far": lambda b, x: b.conv(x, 5, 2, stride_w=2, stride_h=2, padding="VALID"),
    "whole rows": lambda b, x: b.add("CONV_2D", x, b.constant(5, 1, 4, 6), b.constant(5), padding="VALID"),
    "hard swish": lambda b, x: b.add("HARD_SWISH", x),
    "channel order": lambda b, x: b.conv(b.add("MUL", b.add("GATHER", b.input, b.integers(2, 0, 1), axis=3),
                                               b.constant(3)), 5, 3),
    "sum": lambda b, x: b.add("SUM", x, b.integers(1, 2), keep_dims=True),
    "no bias": lambda b, x: b.add("FULLY_CONNECTED", x, b.constant(5, 6), -1, keep_num_dims=True),
    "computed weights": lambda b, x: b.add("FULLY_CONNECTED", b.reshape(x, 16, 6), b.reshape(x, 16, 6), b.constant(16)),
    "constant rows": lambda b, x: b.add("BATCH_MATMUL", b.constant(3, 6), b.tokens(x), adj_y=True),
    "bare root": lambda b, x: b.add("MUL", x, b.add("RSQRT", b.add(
        "MEAN", b.add("MUL", x, x), b.integers(3), keep_dims=True))),
    "shared constant": lambda b, x: (lambda c: b.add("MUL", b.add("TANH", b.add("MUL", x, c)), c))(b.constant(4, 4, 6)),
    "factor of both": _factor_of_both, "turned and flat": _turned_and_flat, "padded channels": _padded_channels,
    "turned twice": _turned_twice, "few columns": _few_columns, "many columns": _many_columns,
    "sum on the right": _sum_on_the_right, "taps behind a term": _taps("SUB"), "taps behind a factor": _taps("MUL"),
    "sample norm without eps": lambda b, x: _sample_norm(b, x, eps=0.0),
    "layer and term": lambda b, x: b.add("ADD", b.linear(x, 5), b.constant(5)),
    "term and layer": lambda b, x: b.add("ADD", b.constant(1, 1, 1, 5), b.linear(x, 5)),
    "layer, term, linears": _between_linears,
    "flat mean": lambda b, x: b.add("MEAN", b.reshape(x, 1, 1, 16, 6), b.integers(3), keep_dims=True),
    **{f"product {rank} {x} {y}": _product(rank, x, y)
       for rank, x, y in itertools.product((2, 3), (False, True), (False, True))},
}  # fmt: skip
TYPED: dict[str, tuple[str, Piece]] = {
    "float row": (FLOAT, _row), "float twins": (FLOAT, _twins), "int16 mean": (INT16, SIMPLE["mean"]),
    "int16 mean of squares": (INT16, WHOLE["bare root"]), "float mean": (FLOAT, SIMPLE["mean"]),
    "int16 row": (INT16, _row), "int16 twins": (INT16, _twins),
}  # fmt: skip
PIECES: dict[str, Piece] = {**FORMS, **WHOLE, **{name: piece for name, (_, piece) in TYPED.items()}}


@cache
def built(name: str) -> tuple[Graph, dict[str, Graph]]:
    """A piece behind a convolution and in front of a linear, and what each pass that changes it makes of it."""
    b = Builder(np.random.default_rng(2))
    graph = edit.without_unread(b.graph(b.linear(PIECES[name](b, b.conv(b.input)), 4)))
    if name in TYPED:
        inside = [t for n in graph.nodes[1:-1] for t in n.outputs]
        graph = edit.computed_in(graph, inside, TYPED[name][0], TYPED[name][0])
    found = {p: edited(graph) for p, edited in EDITS.items()}
    return graph, {p: g for p, g in found.items() if g is not None and g is not graph and g.nodes != graph.nodes}


# --- convolutions of every kind ---

KINDS: dict[str, dict[str, int]] = {
    "plain": {}, "groups": {"groups": 3}, "dilated": {"dilation_w_factor": 2}, "strided": {"stride_w": 2},
    "of two images": {"images": 2}, "without bias": {"bias": 0},
}  # fmt: skip


def layer(b: Builder, x: int, width: int, *, groups: int = 1, images: int = 1, bias: int = 1, **attrs: object) -> int:
    """A convolution with a kernel one row high and ``width`` pixels wide."""
    _, height, across, channels = b.shape(x)
    x = b.reshape(x, images, height // images, across, channels) if images > 1 else x
    weight = b.constant(6, 1, width, channels // groups)
    return b.add("CONV_2D", x, weight, b.constant(6) if bias else -1, **attrs)


def _halves(b: Builder, x: int, **kind: int) -> int:
    y = layer(b, x, 1, **kind)
    axis = b.tensor("axis", (), "INT32", np.array(3, np.int32))
    parts = tuple(b.tensor("part", (*b.shape(y)[:3], 3)) for _ in range(2))
    b.nodes.append(Node("SPLIT", spec("SPLIT").attrs(num_splits=2), (axis, y), parts))
    return b.add("MUL", *parts)


PLACES: dict[str, Callable[..., int]] = {
    "stem": lambda b, x, **kind: layer(b, b.input, 2, padding="SAME", **{"stride_w": 2, **kind}),
    "few outputs": lambda b, x, **kind: layer(b, x, 2 if "dilation_w_factor" in kind else 3, padding="VALID", **kind),
    "far": lambda b, x, **kind: layer(b, x, 2, padding="VALID", **{"stride_w": 2, **kind}),
    "whole rows": lambda b, x, **kind: layer(b, x, 4, padding="VALID", **kind),
    "halves": _halves,
    "behind a factor": lambda b, x, **kind: layer(b, b.add("MUL", b.add("TANH", x), b.constant(6)), 3, **kind),
    "behind a term": lambda b, x, **kind: layer(b, b.add("SUB", b.add("TANH", x), b.constant(6)), 1, **kind),
    "in front of a factor": lambda b, x, **kind: b.add("TANH", b.add("MUL", layer(b, x, 1, **kind), b.constant(6))),
    "in front of a term": lambda b, x, **kind: b.add("TANH", b.add("ADD", b.constant(6), layer(b, x, 1, **kind))),
    "in another order": lambda b, x, **kind: layer(b, b.add("GATHER", b.input, b.integers(2, 0, 1), axis=3), 1, **kind),
}  # fmt: skip
# a dilated kernel would be wider than the map
LAYERS = {(place, kind) for place in PLACES for kind in KINDS} - {("whole rows", "dilated")}
