"""Where passes stop: graphs that differ from those they are for in one respect."""

from __future__ import annotations

import numpy as np
import pytest

from qhyvit.graph.ir import Graph
from qhyvit.ops import all_ops
from qhyvit.passes import channel_factors, flat_layers, padded_columns, quotients
from qhyvit.passes.shared.signs import is_nonnegative
from tests._graphs import Builder, ops
from tests._plans import graph_of
from tests.test_passes_values import check_same


@pytest.fixture
def made() -> Builder:
    return Builder(np.random.default_rng(0))


# --- signs ---

# what an op gives of (signed and signed, signed and not negative, neither negative)
SIGNS = {
    "ADD": (False, False, True), "DIV": (False, False, True), "MINIMUM": (False, False, True),
    "MUL": (False, False, True), "MAXIMUM": (False, True, True), "SUB": (False, False, False),
    "SQUARED_DIFFERENCE": (True, True, True), "POW": (False, False, False),
}  # fmt: skip


@pytest.mark.parametrize("op", SIGNS)
@pytest.mark.parametrize("turned", [False, True])
def test_signs_of_two_operands(made: Builder, op: str, turned: bool) -> None:
    """The signed one is the input, whose number is 0."""
    other, positive = made.conv(made.input, 3), made.add("RELU", made.conv(made.input, 3))
    pairs = [(made.input, other), (made.input, positive), (positive, made.add("ABS", other))]
    results = [made.add(op, *(reversed(p) if turned else p)) for p in pairs]
    graph = graph_of(made, *results)
    assert tuple(is_nonnegative(graph, t) for t in results) == SIGNS[op]


@pytest.mark.parametrize("op", ["RELU", "RELU6", "LOGISTIC", "SOFTMAX", "EXP", "ABS", "SQUARE", "SQRT", "RSQRT"])
def test_ops_that_give_nothing_negative(made: Builder, op: str) -> None:
    result = made.add(op, made.input)
    assert is_nonnegative(graph_of(made, result), result)


@pytest.mark.parametrize("op", ["TANH", "NEG", "ELU", "HARD_SWISH", "GELU", "LOG"])
def test_ops_whose_results_may_be_negative(made: Builder, op: str) -> None:
    assert op in all_ops()
    result = made.add(op, made.add("ABS", made.input))
    assert not is_nonnegative(graph_of(made, result), result)


def test_signs_of_what_is_moved_constant_or_squared(made: Builder) -> None:
    positive = made.add("ABS", made.input)
    moved = [made.tokens(x) for x in (made.input, positive)]
    constants = [made.constant(3, low=0.0), made.constant(3), made.integers(-1)]
    squared = made.add("MUL", made.input, made.input)
    joined = [made.add("CONCATENATION", positive, x, axis=3) for x in (positive, made.input)]
    fused = made.conv(made.input, fused_activation_function="RELU6")
    graph = graph_of(made, *moved, squared, *joined, fused)
    assert [is_nonnegative(graph, t) for t in moved] == [False, True]
    assert [is_nonnegative(graph, t) for t in constants] == [True, False, True]
    assert is_nonnegative(graph, squared)
    assert [is_nonnegative(graph, t) for t in joined] == [True, False]
    assert is_nonnegative(graph, fused)
    assert not is_nonnegative(graph, made.input)


# --- columns that come from padding ---


def padded_product(b: Builder, begin: int, size: int, *, before: int = 0, behind: int = 1, fill: float = 1.0,
                   reshaped: bool = False, turned: bool = False) -> Graph:  # fmt: skip
    """Columns ``begin`` .. of a product whose right operand is padded with ``fill``: [1, 16, 16] x [1, 16, 6 + ..]."""
    x = b.tokens(b.conv(b.input))
    pads = b.tensor("pads", (3, 2), "INT32", np.array([[0, 0], [0, 0], [before, behind]], np.int32))
    right = b.add("PADV2", x, pads, b.number(fill))
    wide = 6 + before + behind
    right = b.add("TRANSPOSE", right, b.integers(0, 2, 1)) if turned else right
    both = b.add("BATCH_MATMUL", b.add("BATCH_MATMUL", x, x, adj_y=True), right, adj_y=turned)
    if reshaped:
        both = b.reshape(both, 1, 4, 4 * wide)
        return graph_of(b, b.add("SLICE", both, b.integers(0, 0, begin), b.integers(1, 4, size)))
    return graph_of(b, b.add("SLICE", both, b.integers(0, 0, begin), b.integers(1, 16, size)))


@pytest.mark.parametrize(
    ("begin", "size", "pads"),
    [
        (6, 1, {}), (0, 6, {}), (0, 3, {}), (2, 4, {}), (0, 1, {"before": 1, "behind": 0}),
        (1, 6, {"before": 1, "behind": 0}), (2, 6, {"before": 2, "behind": 1}), (7, 1, {"before": 2, "behind": 1}),
        (1, 1, {"before": 2, "behind": 1}), (8, 1, {"before": 2, "behind": 1}), (0, 6, {"fill": 0.0}),
    ],
)  # fmt: skip
def test_columns_of_padding_or_of_what_is_padded_are_made_alone(made: Builder, begin, size, pads) -> None:
    graph = padded_product(made, begin, size, **pads)
    found = padded_columns.apply(graph)
    check_same(graph, found, "padded_columns")
    assert "PADV2" not in ops(found)


@pytest.mark.parametrize(
    ("begin", "size", "pads"),
    [
        (5, 2, {}), (6, 1, {"fill": 0.5}), (6, 1, {"fill": 2.0}), (0, 2, {"before": 1}), (1, 7, {"before": 1}),
        (6, 2, {"behind": 2}), (6, 1, {"reshaped": True}), (6, 1, {"turned": True}),
    ],
)  # fmt: skip
def test_other_columns_stay(made: Builder, begin, size, pads) -> None:
    graph = padded_product(made, begin, size, **pads)
    assert padded_columns.apply(graph) is graph


# --- tokens that a linear reads flat ---


def flat(b: Builder, *readers: str) -> Graph:
    """A linear between two RESHAPEs, the first one read by others as well, or an output."""
    x = b.tokens(b.conv(b.input))
    first = b.reshape(x, 16, 6)
    outputs = [b.reshape(b.linear(first, 5), 1, 16, 5)]
    if "an op" in readers:
        outputs.append(b.add("RELU", first))
    if "an output" in readers:
        outputs.append(first)
    return graph_of(b, *outputs)


@pytest.mark.parametrize("readers", [(), ("an op",), ("an output",), ("an op", "an output")])
def test_a_reshape_goes_if_nobody_else_reads_it(made: Builder, readers) -> None:
    graph = flat(made, *readers)
    found = flat_layers.apply(graph)
    check_same(graph, found, "flat_layers")
    layer = next(n for n in found.nodes if n.op == "FULLY_CONNECTED")
    assert len(found.tensors[layer.inputs[0]].shape) == 3
    assert ops(found).count("RESHAPE") == ops(graph).count("RESHAPE") - (not readers)


# --- quotients ---


@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_floors_of_roots_from_nothing_to_the_largest(made: Builder, floor: float) -> None:
    squares = made.add("SUM", made.add("MUL", made.input, made.input), made.integers(3), keep_dims=True)
    root = made.add("MAXIMUM", made.add("SQRT", squares), made.number(floor))
    graph = graph_of(made, made.add("DIV", made.input, root))
    found = quotients.apply(graph)
    assert not {"DIV", "SQRT", "MAXIMUM"} & set(ops(found))
    check_same(graph, found, "quotients")


@pytest.mark.parametrize(("value", "goes"), [(1.0, True), (2.0, False), (0.0, False), (-1.0, False)])
def test_products_with_one_go(made: Builder, value: float, goes: bool) -> None:
    x = made.conv(made.input)
    graph = graph_of(made, made.add("RELU", made.add("MUL", made.add("ABS", x), made.number(value))))
    found = quotients.apply(graph)
    check_same(graph, found, "quotients")
    assert ("MUL" not in ops(found)) == goes


# --- factors of channels ---


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("op", ["MUL", "ADD", "SUB"])
def test_terms_go_into_layers_that_see_no_zeros(made: Builder, padding: str, kernel: tuple[int, int], op: str) -> None:
    """A factor leaves the zeros around a map as they are; a term would not."""
    x = made.add("RELU", made.conv(made.input))
    y = made.add(op, x, made.constant(6))
    weight = made.constant(5, *kernel, 6)
    graph = graph_of(made, made.add("CONV_2D", y, weight, made.constant(5), padding=padding))
    found = channel_factors.apply(graph)
    check_same(graph, found, "channel_factors")
    goes = op == "MUL" or padding == "VALID" or kernel == (1, 1)
    assert (op not in ops(found)) == goes


def test_a_norms_factor_and_term_that_others_read_are_one_op(made: Builder) -> None:
    x, root = made.conv(made.input), made.add("RSQRT", made.add("ABS", made.conv(made.input, 1)))
    total = made.add("ADD", made.add("MUL", made.add("MUL", x, root), made.constant(6)), made.constant(6))
    graph = graph_of(made, made.linear(total, 4), made.add("TANH", total))
    found = channel_factors.apply(graph)
    check_same(graph, found, "channel_factors")
    assert ops(found).count("DEPTHWISE_CONV_2D") == 1
    assert "ADD" not in ops(found)
    depthwise = next(n for n in found.nodes if n.op == "DEPTHWISE_CONV_2D")
    assert found.tensors[depthwise.inputs[0]].shape == (1, 1, 16, 6)
