"""What a pass takes away may be read by others, held by another axis or made by a fused op: the values stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import FLOAT, INT16, Graph, Node
from qhyvit.latency.profile import Sizes
from qhyvit.ops import spec
from qhyvit.passes import all_passes
from qhyvit.passes.shared.graph_pass import Phase
from qhyvit.sim.run import Executor
from qhyvit.targets import target
from tests._graphs import PIECES as SIMPLE
from tests._graphs import Builder, Piece
from tests.test_passes_values import CLOSE, FORMS

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


def _sample_norm(b: Builder, x: int) -> int:
    row = b.reshape(b.add("TRANSPOSE", x, b.integers(0, 3, 1, 2)), 1, 1, 96)
    centre = b.add("SUB", row, b.add("MEAN", row, b.integers(2), keep_dims=True))
    variance = b.add("MEAN", b.add("MUL", centre, centre), b.integers(2), keep_dims=True)
    root = b.add("RSQRT", b.add("ADD", variance, b.constant(1, 1, 1, low=0.1)))
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
    minus, alpha = b.tensor("minus", (), data=np.array(-1, np.float32)), b.constant(1, 1, 6)
    below = b.add("MUL", x, minus, fused_activation_function="RELU")
    return b.add("SUB", b.add("RELU", x), b.add("MUL", below, alpha))


def _twins(b: Builder, x: int) -> int:
    c = b.constant(6)
    return b.add("MUL", b.add("TANH", b.add("SUB", x, c)), b.add("SUB", x, c))


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
}  # fmt: skip
TYPED: dict[str, tuple[str, Piece]] = {
    "float row": (FLOAT, _row), "float twins": (FLOAT, _twins), "int16 mean": (INT16, SIMPLE["mean"]),
    "int16 mean of squares": (INT16, WHOLE["bare root"]),
}  # fmt: skip
PIECES: dict[str, Piece] = {**FORMS, **WHOLE, **{name: piece for name, (_, piece) in TYPED.items()}}


def values(graph: Graph, *wanted: int) -> dict[int, torch.Tensor]:
    pixels = torch.rand(2, 4, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return Executor(graph, torch.float64, exact=True).run(pixels, None, wanted)


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


def gone(graph: Graph, found: Graph) -> list[Node]:
    """Nodes that a pass takes away or changes."""
    return [n for n in graph.nodes if n not in found.nodes]


def same(what: str, graph: Graph, expected: dict[int, torch.Tensor], edited: Callable[[Graph], Graph | None]) -> None:
    """An edit leaves the outputs of a graph what they are, in their shapes."""
    after = edited(graph)
    assert after is not None, what
    if after is graph:
        return
    after.check()
    assert after.outputs == graph.outputs, what
    found = values(after)
    for t in graph.outputs:
        assert found[t].shape == expected[t].shape, what
        assert after.tensors[t].shape == graph.tensors[t].shape, what
        one, two = (torch.nan_to_num(v, neginf=-9.0) for v in (expected[t], found[t]))  # a padding of -inf
        assert float((one - two).abs().max()) <= CLOSE * float(one.abs().max()) + 1e-9, what


@pytest.mark.parametrize("name", PIECES)
def test_what_a_pass_takes_away_may_be_an_output(name: str) -> None:
    graph, changed = built(name)
    kept = values(graph, *(t for n in graph.nodes for t in n.outputs))
    for pass_name, found in changed.items():
        same(f"{pass_name} of {name}", graph, kept, EDITS[pass_name])
        for t in (t for n in gone(graph, found) for t in n.outputs if t not in graph.outputs):
            what = f"{pass_name} of {name} with the output {graph.tensors[t].name}"
            same(what, replace(graph, outputs=(*graph.outputs, t)), kept, EDITS[pass_name])


@pytest.mark.parametrize("name", PIECES)
def test_a_graph_may_end_with_what_a_pass_takes_away(name: str) -> None:
    graph, changed = built(name)
    kept = values(graph, *(t for n in graph.nodes for t in n.outputs))
    for pass_name, found in changed.items():
        for t in (t for n in gone(graph, found) for t in n.outputs):
            end = edit.without_unread(replace(graph, outputs=(t,)))
            same(f"{pass_name} of {name} up to {graph.tensors[t].name}", end, kept, EDITS[pass_name])


@pytest.mark.parametrize("name", TYPED)
def test_what_a_pass_makes_in_an_island_is_computed_in_its_type(name: str) -> None:
    for pass_name, found in built(name)[1].items():
        if all_passes()[pass_name].phase is Phase.LOWERED:
            assert {(n.reads, n.writes) for n in found.nodes[1:-1]} == {(TYPED[name][0], TYPED[name][0])}, pass_name


@pytest.mark.parametrize("name", PIECES)
def test_a_pass_leaves_a_second_reader_of_the_same_operands_what_it_reads(name: str) -> None:
    """The second reader, a copy of a node that goes, shares its constants and what it reads."""
    graph, changed = built(name)
    kept = values(graph, *(t for n in graph.nodes for t in n.outputs))
    for pass_name, found in changed.items():
        for node in gone(graph, found):
            twice, expected = with_copy(graph, node, kept)
            same(f"{pass_name} of {name} with two {node.op}", twice, expected, EDITS[pass_name])


def with_copy(graph: Graph, node: Node, kept: dict[int, torch.Tensor]) -> tuple[Graph, dict[int, torch.Tensor]]:
    """A graph whose ``node`` is there twice, the second time for an output of its own, and all values by tensor."""
    expected, outputs = dict(kept), []
    for t in node.outputs:
        graph, new = edit.add_tensor(graph, f"{graph.tensors[t].name}.copy", graph.tensors[t].shape, "FLOAT32")
        expected[new] = kept[t]
        outputs.append(new)
    at = graph.nodes.index(node) + 1
    nodes = (*graph.nodes[:at], replace(node, outputs=tuple(outputs)), *graph.nodes[at:])
    return replace(graph, nodes=nodes, outputs=(*graph.outputs, *outputs)), expected


def rectified(graph: Graph, nodes: list[Node]) -> Iterator[Graph]:
    """The graph with a fused RELU in one of these nodes."""
    for node in nodes:
        if getattr(node.attrs, "fused_activation_function", None) == "NONE":
            fused = replace(node, attrs=replace(node.attrs, fused_activation_function="RELU"))
            yield edit.replace_node(graph, node, fused)


@pytest.mark.parametrize("name", PIECES)
def test_a_pass_keeps_fused_activations(name: str) -> None:
    graph, changed = built(name)
    for pass_name, found in changed.items():
        for other in rectified(graph, gone(graph, found)):
            same(f"{pass_name} of {name}, fused", other, values(other), EDITS[pass_name])


def test_every_pass_has_such_a_graph_but_one_that_needs_a_large_one() -> None:
    assert set(EDITS) - {p for name in PIECES for p in built(name)[1]} == {"short_reductions"}
