"""Rewrites that recognise what ops compute: the same network written in several ways, equal in float64 afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Node
from qhyvit.lowering.contracts import groups
from qhyvit.models.shared.masks import finite
from qhyvit.passes import (
    all_passes,
    batched_layers,
    channel_order,
    exponentials,
    matrix_product,
    padded_columns,
    padded_pools,
    powers,
    prescribed_ranges,
    quotients,
    reciprocals,
)  # fmt: skip
from qhyvit.sim.run import Executor
from tests._graphs import Builder, ops
from tests._plans import graph_of


@pytest.fixture
def made():
    """A builder with a map of signed values behind a convolution: ``made.x``, [1, 4, 4, 6]."""
    builder = Builder(np.random.default_rng(0))
    builder.x = builder.conv(builder.input)
    return builder


def floats(builder, values):
    data = np.asarray(values, np.float32)
    return builder.tensor("floats", data.shape, data=data)


def check_same(before, after):
    """The outputs, in float64, on values that the ops see nowhere else."""
    after.check()
    pixels = torch.rand(3, 4, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    one, two = (Executor(g, torch.float64).run(pixels) for g in (before, after))
    for t in before.outputs:
        assert one[t].shape == two[t].shape
        assert float((one[t] - two[t]).abs().max()) <= 1e-6 * float(one[t].abs().max())
    assert all(after.tensors[t].shape == before.tensors[t].shape for t in before.outputs)


# --- norms and other quotients ---
def squares(b, x):
    return b.add("SUM", b.add("MUL", x, x), b.integers(3), keep_dims=True)


def maximum(b, y, floor=1e-6):
    return b.add("MAXIMUM", y, b.number(floor))


NORMS = {
    "max(sqrt(sum))": lambda b, x: b.add("DIV", x, maximum(b, b.add("SQRT", squares(b, x)))),
    "the floor first": lambda b, x: b.add("DIV", x, b.add("MAXIMUM", b.number(1e-6), b.add("SQRT", squares(b, x)))),
    "sqrt": lambda b, x: b.add("DIV", x, b.add("SQRT", squares(b, x))),
    "sqrt + eps": lambda b, x: b.add("DIV", x, b.add("ADD", b.add("SQRT", squares(b, x)), b.number(1e-7))),
    "sqrt(sum + eps)": lambda b, x: b.add("DIV", x, b.add("SQRT", b.add("ADD", squares(b, x), b.number(1e-5)))),
    "sqrt(max(sum))": lambda b, x: b.add("DIV", x, b.add("SQRT", maximum(b, squares(b, x)))),
    "mean": lambda b, x: b.add("DIV", x, b.add("SQRT", b.add(
        "MEAN", b.add("MUL", x, x), b.integers(3), keep_dims=True))),
    "reshape below the floor": lambda b, x: b.add("DIV", x, maximum(b, b.add(
        "RESHAPE", b.add("SQRT", b.add("SUM", b.add("MUL", x, x), b.integers(3))), b.integers(1, 4, 4, 1),
        new_shape=(1, 4, 4, 1)))),
    "broadcast above it": lambda b, x: b.add("DIV", x, b.add(
        "BROADCAST_TO", maximum(b, b.add("SQRT", squares(b, x))), b.integers(1, 4, 4, 6))),
    "times the inverse": lambda b, x: b.add("MUL", b.add("DIV", b.number(1.0), b.add("SQRT", squares(b, x))), x),
    "power": lambda b, x: b.add("MUL", x, b.add("POW", b.add("ADD", squares(b, x), b.number(1e-6)), b.number(-0.5))),
    "power as divisor": lambda b, x: b.add("DIV", x, b.add("POW", squares(b, x), b.number(0.5))),
    "times a constant": lambda b, x: b.add("DIV", x, b.add("MUL", b.add("SQRT", squares(b, x)), b.number(3.0))),
    "squares of absolutes": lambda b, x: b.add("DIV", x, b.add("SQRT", squares(b, b.add("ABS", x)))),
}  # fmt: skip


@pytest.mark.parametrize("form", NORMS)
def test_every_form_of_a_norm_has_roots_and_products_only(made, form):
    graph = graph_of(made, NORMS[form](made, made.x))
    found = quotients.apply(powers.apply(graph))
    check_same(graph, found)
    kept = {"MAXIMUM"} if form == "sqrt(max(sum))" else set()
    assert {"DIV", "SQRT", "POW", "MAXIMUM", "ABS"} & set(ops(found)) == kept
    assert ops(found).count("RSQRT") == 1
    # what keeps the root from 0 is added once, and not again where it is there
    assert ops(found).count("ADD") == (form != "sqrt(max(sum))")


def test_a_floor_that_is_a_value_stays(made):
    graph = graph_of(made, made.add("DIV", made.x, maximum(made, made.add("SQRT", squares(made, made.x)), 0.5)))
    assert quotients.apply(graph) is graph


@pytest.mark.parametrize("power", [2.0, 3.0, 4.0, 0.5, 1.5, 2.5, 3.5, -1.0, -0.5, -1.5, -2.0, -4.0, 1.0])
def test_powers_by_constants(made, power):
    y = made.add("ADD", made.add("ABS", made.x), made.number(0.5))
    graph = graph_of(made, made.add("POW", y, made.number(power)))
    found = powers.apply(graph)
    assert "POW" not in ops(found)
    check_same(graph, found)


DIVISORS = {
    "positive": lambda b: b.add("ADD", b.add("ABS", b.conv(b.x)), b.number(0.1)),
    "products of rectified": lambda b: b.add("MUL", b.conv(b.x, fused_activation_function="RELU6"), floats(b, [1.5])),
    "signed": lambda b: b.add("SUB", b.add("RELU", b.x), b.number(9.7)),
}


@pytest.mark.parametrize("divisor", DIVISORS)
def test_quotients_of_activations_are_products_with_roots(made, divisor):
    y = DIVISORS[divisor](made)
    if divisor == "products of rectified":
        y = made.add("ADD", y, made.number(0.1))
    graph = graph_of(made, made.add("DIV", made.x, y))
    found = reciprocals.apply(graph)
    check_same(graph, found)
    assert ops(found).count("RSQRT") == 1
    assert "DIV" not in ops(found)
    squared = [n for n in found.nodes if n.op == "MUL" and n.inputs == (y, y)]
    assert bool(squared) == (divisor == "signed")


# --- softmax ---
def summed(b, e, axis):
    return b.add("SUM", e, b.integers(axis), keep_dims=True)


def shifted(b, x, axis):
    return b.add("SUB", x, b.add("REDUCE_MAX", x, b.integers(axis), keep_dims=True))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("form", ["plain", "shifted", "floored", "moved"])
def test_exponentials_over_their_sum_are_a_softmax(made, axis, form):
    x = made.x
    if form == "floored":
        peak = made.add("MAXIMUM", made.add("REDUCE_MAX", x, made.integers(axis), keep_dims=True), made.number(-1e3))
        e = made.add("EXP", made.add("SUB", x, peak))
    else:
        e = made.add("EXP", shifted(made, x, axis) if form == "shifted" else x)
    if form == "moved":
        e = made.add("TRANSPOSE", e, made.integers(0, 2, 1, 3))
    graph = graph_of(made, made.add("DIV", e, summed(made, e, axis)))
    found = exponentials.apply(graph)
    check_same(graph, found)
    assert "EXP" not in ops(found)
    assert ops(found).count("SOFTMAX") == 1


def test_exponentials_over_something_else_stay(made):
    e = made.add("EXP", made.x)
    graph = graph_of(made, made.add("DIV", e, made.add("ADD", summed(made, e, 3), made.number(1.0))))
    assert ops(exponentials.apply(graph)) == ops(graph)


# --- max pools ---
def padded_pool(b, source, pads, kernel, stride, value=-np.inf):
    padding = b.tensor("pads", (4, 2), "INT32", np.array([[0, 0], *pads, [0, 0]], np.int32))
    size = {"filter_height": kernel, "filter_width": kernel, "stride_h": stride, "stride_w": stride}
    return b.add("MAX_POOL_2D", b.add("PADV2", source, padding, b.number(value)), padding="VALID", **size)


@pytest.mark.parametrize("value", [-np.inf, -3.4e38])
@pytest.mark.parametrize(
    ("pads", "kernel", "stride", "rectified", "expected"),
    [
        (((1, 1), (1, 1)), 3, 1, False, "MAX_POOL_2D"),
        (((1, 1), (1, 1)), 3, 2, True, "PAD"),
        (((1, 1), (1, 1)), 3, 2, False, "CONCATENATION"),
        (((0, 1), (0, 1)), 3, 2, False, "MAX_POOL_2D"),
        (((2, 2), (2, 2)), 5, 2, False, "CONCATENATION"),
        (((1, 0), (0, 1)), 2, 1, False, "CONCATENATION"),
        (((0, 0), (1, 1)), 3, 2, False, "CONCATENATION"),
    ],
)
def test_pools_see_no_infinity(made, pads, kernel, stride, rectified, expected, value):
    source = made.add("RELU", made.x) if rectified else made.x
    graph = graph_of(made, padded_pool(made, source, pads, kernel, stride, value))
    assert ops(finite(graph)) == ops(graph)
    found = padded_pools.apply(graph)
    check_same(graph, found)
    assert {"PADV2", "PAD", "CONCATENATION", "MAX_POOL_2D"} & set(ops(found)) == {"MAX_POOL_2D", expected}
    assert all(len(n.inputs) > 1 for n in found.nodes if n.op == "CONCATENATION")
    read = [found.tensors[t].data for n in found.nodes for t in n.inputs]
    assert all(data is None or np.isfinite(data).all() for data in read)


def test_padding_that_others_read_stays(made):
    pool = padded_pool(made, made.x, ((1, 1), (1, 1)), 3, 2, -1e31)
    other = made.add("ADD", made.nodes[-2].outputs[0], made.number(1.0))
    graph = graph_of(made, pool, other)
    assert padded_pools.apply(graph) is graph


# --- the order of channels ---
def gathered(b, x, order):
    return b.add("GATHER", x, b.integers(*order), axis=3)


def by_concatenation(b, x, order):
    parts = [b.add("SLICE", x, b.integers(0, 0, 0, c), b.integers(1, 4, 4, 1)) for c in order]
    return b.add("CONCATENATION", *parts, axis=3)


def by_turning(b, x, order):
    first = b.add("TRANSPOSE", x, b.integers(3, 0, 1, 2))
    return b.add("TRANSPOSE", b.add("GATHER", first, b.integers(*order), axis=0), b.integers(1, 2, 3, 0))


ORDERS = {
    "flip": (lambda b, x, _: b.add("REVERSE_V2", x, b.integers(3)), (2, 1, 0)),
    "gather": (gathered, (1, 2, 0)),
    "concatenation": (by_concatenation, (2, 1, 0)),
    "transposes": (by_turning, (1, 2, 0)),
    "twice the same": (gathered, (1, 1, 0)),
}


@pytest.mark.parametrize("form", ORDERS)
@pytest.mark.parametrize("between", ["nothing", "mean and deviation", "padding"])
def test_an_order_of_channels_goes_into_the_weights(form, between):
    b = Builder(np.random.default_rng(0))
    make, order = ORDERS[form]
    x = make(b, b.input, order)
    if between == "mean and deviation":
        x = b.add("MUL", b.add("SUB", x, b.constant(1, 1, 1, 3)), b.constant(3))
    if between == "padding":
        pads = b.tensor("pads", (4, 2), "INT32", np.array([[0, 0], [1, 1], [1, 0], [0, 0]], np.int32))
        x = b.add("PAD", x, pads)
    graph = graph_of(b, b.conv(x, 5, 3))
    found = channel_order.apply(graph)
    check_same(graph, found)
    kept = form == "twice the same" and between != "nothing"
    assert bool({"REVERSE_V2", "GATHER", "CONCATENATION", "TRANSPOSE"} & set(ops(found))) == kept


def test_pixels_that_move_are_no_order_of_channels():
    b = Builder(np.random.default_rng(0))
    graph = graph_of(b, b.conv(b.add("REVERSE_V2", b.input, b.integers(2)), 5, 3))
    assert channel_order.apply(graph) is graph


def test_a_convolution_with_groups_keeps_the_order():
    b = Builder(np.random.default_rng(0))
    weight, bias = b.constant(6, 1, 1, 1), b.constant(6)
    graph = graph_of(b, b.add("CONV_2D", gathered(b, b.input, (2, 0, 1)), weight, bias))
    assert channel_order.apply(graph) is graph


# --- products ---
def tokens(b):
    return b.add("RESHAPE", b.x, b.integers(1, 16, 6), new_shape=(1, 16, 6))


@pytest.mark.parametrize("turned", [False, True])
def test_linear_attention_has_a_product_and_a_sum(made, turned):
    q, v = made.add("RELU", tokens(made)), tokens(made)
    pads = made.tensor("pads", (3, 2), "INT32", np.array([[0, 0], [0, 0], [0, 1]], np.int32))
    padded = made.add("PADV2", v, pads, made.number(1.0))
    keys = q if turned else made.add("TRANSPOSE", q, made.integers(0, 2, 1))
    both = made.add("BATCH_MATMUL", q, made.add("BATCH_MATMUL", keys, padded, adj_x=turned))
    over = made.add("SLICE", both, made.integers(0, 0, 0), made.integers(1, 16, 6))
    under = made.add("SLICE", both, made.integers(0, 0, 6), made.integers(1, 16, 1))
    graph = graph_of(made, made.add("DIV", over, made.add("ADD", under, made.number(1e-3))))
    found = padded_columns.apply(graph)
    check_same(graph, found)
    assert not {"PADV2", "SLICE"} & set(ops(found))
    roots = reciprocals.apply(found)
    check_same(graph, roots)
    root = next(n for n in roots.nodes if n.op == "RSQRT")
    assert roots.producer(root.inputs[0]).op == "ADD", "the sum is not negative, and needs no square"


@pytest.mark.parametrize("op", ["SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_prescribed_grid_is_no_right_operand(made, op, turned):
    x = tokens(made)
    attrs = {"beta": 1.0} if op == "SOFTMAX" else {}
    weights = made.add(op, made.add("BATCH_MATMUL", x, x, adj_y=True), **attrs)
    right = made.add("TRANSPOSE", weights, made.integers(0, 2, 1)) if turned else weights
    left = made.add("TRANSPOSE", x, made.integers(0, 2, 1))
    graph = graph_of(made, made.add("BATCH_MATMUL", left, right))
    found = prescribed_ranges.apply(graph)
    check_same(graph, found)
    assert all(not (g.fixed and g.symmetric) for g in groups(found))
    assert any(g.fixed and g.symmetric for g in groups(graph))


def test_what_is_joined_with_a_prescribed_grid_keeps_its_own(made):
    parts = made.add("LOGISTIC", made.x), made.add("TANH", made.x), made.x
    graph = graph_of(made, made.add("CONCATENATION", *parts, axis=3))
    found = prescribed_ranges.apply(graph)
    check_same(graph, found)
    own = next(g for g in groups(found) if found.outputs[0] in g.members)
    assert own.fixed is None


# shape of x, of the constant, and whether it is on the left
CONSTANTS = {
    "right, one": ((1, 16, 6), (6, 5), False),
    "right, each": ((2, 8, 6), (2, 6, 5), False),
    "right, ones in front": ((1, 4, 4, 6), (1, 1, 6, 5), False),
    "left, one": ((1, 16, 6), (4, 16), True),
    "left, each": ((2, 8, 6), (2, 4, 8), True),
}


@pytest.mark.parametrize("form", CONSTANTS)
@pytest.mark.parametrize("adj", [False, True])
def test_products_with_constants_are_layers(made, form, adj):
    shape, own, on_left = CONSTANTS[form]
    x = made.reshape(made.x, *shape)
    c = made.constant(*own[:-2], own[-1], own[-2]) if adj else made.constant(*own)
    y = made.add("BATCH_MATMUL", c, x, adj_x=adj) if on_left else made.add("BATCH_MATMUL", x, c, adj_y=adj)
    graph = graph_of(made, y)
    found = batched_layers.apply(graph)
    check_same(graph, found)
    assert "BATCH_MATMUL" not in ops(found)


@pytest.mark.parametrize("fused", ["NONE", "RELU"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_whose_weights_are_made_is_a_product(made, fused, keep, bias):
    x, weight = tokens(made), made.add("RESHAPE", made.x, made.integers(16, 6), new_shape=(16, 6))
    own = made.constant(16) if bias else -1
    y = made.add("FULLY_CONNECTED", x, weight, own, keep_num_dims=keep, fused_activation_function=fused)
    graph = graph_of(made, y)
    found = matrix_product.apply(graph)
    check_same(graph, found)
    assert "FULLY_CONNECTED" not in ops(found)


def test_rewrites_leave_a_graph_without_their_ops_alone(made):
    graph = graph_of(made, made.add("RELU", made.x))
    for module in (batched_layers, channel_order, exponentials, padded_columns, padded_pools, powers, prescribed_ranges,
                   quotients, reciprocals):  # fmt: skip
        assert module.apply(graph) is graph
        assert module.PASS in all_passes().values()
    assert isinstance(graph.nodes[0], Node)
