"""Value-preserving edits on graphs of a few nodes."""

from dataclasses import replace

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency.profile import Sizes, default_profile
from qhyvit.ops import spec
from qhyvit.passes import (
    bias_in_layer,
    explicit_bias,
    few_rows,
    flat_layers,
    matrix_product,
    own_right_operand,
    prepared,
    quotients,
    right_rows,
    squares,
)  # fmt: skip
from qhyvit.sim.run import Executor
from tests._targets import INTEGER


def product(op, left, right, out, **attrs):
    return Node(op, spec(op).attrs(**attrs), (left, right, *([-1] if op == "FULLY_CONNECTED" else [])), (out,))


def sums_and_products(*nodes, shapes, outputs, constants=()):
    """y = x + 1, [1, 1, 4, 4] -> [4, 4], and what ``nodes`` make of tensor 3 = y; ``constants`` come after them."""
    values = [c if isinstance(c, np.ndarray) else np.array(c, np.float32) for c in constants]
    tensors = [
        Tensor(0, "x", (1, 1, 4, 4), "FLOAT32"), Tensor(1, "one", (), "FLOAT32", np.array(1, np.float32)),
        Tensor(2, "sum", (1, 1, 4, 4), "FLOAT32"), Tensor(3, "y", (4, 4), "FLOAT32"),
        Tensor(4, "shape", (2,), "INT32", np.array([4, 4], np.int32)),
        *[Tensor(5 + i, f"t{i}", shape, "FLOAT32") for i, shape in enumerate(shapes)],
        *[Tensor(5 + len(shapes) + i, f"c{i}", v.shape, v.dtype.name.upper(), v) for i, v in enumerate(values)],
    ]  # fmt: skip
    first = Node("ADD", spec("ADD").attrs(), (0, 1), (2,)), Node("RESHAPE", spec("RESHAPE").attrs(), (2, 4), (3,))
    graph = Graph({t.id: t for t in tensors}, (*first, *nodes), (0,), outputs)
    graph.check()
    return graph


INPUT = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def outputs_of(graph):
    return Executor(graph).run(INPUT)


def assert_equal(graph, other):
    mine, theirs = outputs_of(graph), outputs_of(other)
    for a, b in zip(graph.outputs, other.outputs, strict=True):
        assert torch.allclose(mine[a], theirs[b], atol=1e-6)


def test_a_product_of_activations_is_no_layer():
    layer = product("FULLY_CONNECTED", 3, 3, 5)
    graph = sums_and_products(layer, shapes=[(4, 4)], outputs=(5,))
    found = matrix_product.apply(graph)
    assert [n.op for n in found.nodes] == ["ADD", "RESHAPE", "BATCH_MATMUL"]
    y = 1 + INPUT[:, 0]
    assert torch.allclose(outputs_of(found)[5], y @ y.transpose(1, 2), atol=1e-6)
    assert "FULLY_CONNECTED" not in [n.op for n in prepared(graph).nodes]


def test_products_share_their_right_operand():
    two = product("BATCH_MATMUL", 3, 3, 5), product("BATCH_MATMUL", 5, 3, 6)
    graph = sums_and_products(*two, shapes=[(4, 4), (4, 4)], outputs=(6,))
    found = own_right_operand.apply(graph)
    assert [n.op for n in found.nodes].count("ADD") == 2
    first, second = (n for n in found.nodes if n.op == "BATCH_MATMUL")
    assert first.inputs[1] == second.inputs[1] != first.inputs[0]
    assert_equal(graph, found)


def test_a_sum_of_squares_takes_one_copy_on_both_sides():
    row = Node("RESHAPE", spec("RESHAPE").attrs(), (3, 8), (5,))
    square = product("BATCH_MATMUL", 5, 5, 6, adj_y=True)
    other = Node("MUL", spec("MUL").attrs(), (3, 3), (7,))
    shapes, row_shape = [(1, 16), (1, 1), (4, 4)], np.array([1, 16], np.int32)
    graph = sums_and_products(row, square, other, shapes=shapes, outputs=(6, 7), constants=[row_shape])
    found = own_right_operand.apply(graph)
    assert [n.op for n in found.nodes].count("ADD") == 2
    (both,) = (n for n in found.nodes if n.op == "BATCH_MATMUL")
    assert both.inputs[0] == both.inputs[1]
    assert both.inputs[0] not in [t for n in found.nodes if n.op == "MUL" for t in n.inputs]
    assert_equal(graph, found)


def flat_layer(outputs):
    """x [1, 1, 4, 4] -> [4, 4] -> a layer -> [4, 2] -> [2, 4]."""
    layer, last = product("FULLY_CONNECTED", 3, 7, 5), Node("RESHAPE", spec("RESHAPE").attrs(), (5, 8), (6,))
    constants = [np.arange(8, dtype=np.float32).reshape(2, 4), np.array([2, 4], np.int32)]
    return sums_and_products(layer, last, shapes=[(4, 2), (2, 4)], outputs=outputs, constants=constants)


def test_a_layer_reads_its_tokens_as_they_are():
    graph = flat_layer(outputs=(6,))
    found = flat_layers.apply(graph)
    found.check()
    assert [n.op for n in found.nodes] == ["ADD", "FULLY_CONNECTED", "RESHAPE"]
    assert found.tensors[5].shape == (1, 1, 4, 2)
    assert_equal(graph, found)


def test_a_layer_whose_result_is_read_flat_stays():
    graph = flat_layer(outputs=(6, 5))
    assert flat_layers.apply(graph).nodes == graph.nodes


def test_a_right_operand_that_nobody_else_reads_stays():
    scale = Node("MUL", spec("MUL").attrs(), (0, 1), (7,))
    flat = Node("RESHAPE", spec("RESHAPE").attrs(), (7, 4), (6,))
    two = product("BATCH_MATMUL", 6, 3, 5), product("BATCH_MATMUL", 5, 3, 8)
    graph = sums_and_products(scale, flat, *two, shapes=[(4, 4), (4, 4), (1, 1, 4, 4), (4, 4)], outputs=(8,))
    assert own_right_operand.apply(graph).nodes == graph.nodes


def test_products_read_their_right_operand_by_rows():
    turn = Node("TRANSPOSE", spec("TRANSPOSE").attrs(), (3, 9), (5,))
    products = product("BATCH_MATMUL", 3, 5, 6), product("BATCH_MATMUL", 6, 5, 7), product("BATCH_MATMUL", 7, 3, 8)
    constants = [np.array([1, 0], np.int32)]
    graph = sums_and_products(turn, *products, shapes=[(4, 4)] * 4, outputs=(8,), constants=constants)
    found = right_rows.apply(graph, Sizes(columns=16))
    found.check()
    assert all(n.attrs.adj_y for n in found.nodes if n.op == "BATCH_MATMUL")
    # two products read what was turned for them as it was before; the third one's operand lay as it came
    turns = [found.constant(n.inputs[1]).tolist() for n in found.nodes if n.op == "TRANSPOSE"]
    assert turns == [[1, 0]]
    # XNNPACK would take a transpose right in front of its product back
    last = [n for n in found.nodes if n.op == "BATCH_MATMUL"][-1]
    assert found.producer(last.inputs[1]).op == "RESHAPE"
    assert [n.inputs[1] for n in found.nodes if n.op == "BATCH_MATMUL"][:2] == [3, 3]
    assert_equal(graph, found)


def test_a_small_right_operand_stays_unless_a_transpose_can_turn_it():
    turn = Node("TRANSPOSE", spec("TRANSPOSE").attrs(), (3, 8), (5,))
    products = product("BATCH_MATMUL", 3, 5, 6), product("BATCH_MATMUL", 6, 3, 7)
    constants = [np.array([1, 0], np.int32)]
    graph = sums_and_products(turn, *products, shapes=[(4, 4)] * 3, outputs=(7,), constants=constants)
    found = right_rows.apply(graph)
    assert [n.attrs.adj_y for n in found.nodes if n.op == "BATCH_MATMUL"] == [True, False]
    assert_equal(graph, found)


def test_a_right_operand_that_lies_by_rows_or_is_constant_stays():
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    two = product("BATCH_MATMUL", 3, 3, 5, adj_y=True), product("BATCH_MATMUL", 5, 7, 6)
    graph = sums_and_products(*two, shapes=[(4, 4), (4, 4)], outputs=(6,), constants=[weights])
    assert right_rows.apply(graph).nodes == graph.nodes


def node(op, *inputs, out):
    return Node(op, spec(op).attrs(), inputs, (out,))


def test_a_quotient_by_a_constant_is_a_product():
    divisors = [3.0, 0.1, 7.0, 1e5]
    graph = sums_and_products(node("DIV", 3, 6, out=5), shapes=[(4, 4)], outputs=(5,), constants=[divisors])
    found = quotients.apply(graph)
    assert [n.op for n in found.nodes] == ["ADD", "RESHAPE", "MUL"]
    assert_equal(graph, found)


def by_norm(floor):
    """y / max(sqrt(|y| * |y|), floor): each value by its own size, through every op."""
    nodes = (
        node("ABS", 3, out=5), node("MUL", 5, 5, out=6), node("SQRT", 6, out=7), node("MAXIMUM", 7, 10, out=8),
        node("DIV", 3, 8, out=9),
    )  # fmt: skip
    return sums_and_products(*nodes, shapes=[(4, 4)] * 5, outputs=(9,), constants=[floor])


def test_a_quotient_by_a_norm_is_a_product_with_a_reciprocal_root():
    graph = by_norm(1e-12)
    found = quotients.apply(graph)
    found.check()
    assert [n.op for n in found.nodes][2:] == ["MUL", "ADD", "RSQRT", "MUL"]
    assert_equal(graph, found)
    assert torch.allclose(outputs_of(found)[9], torch.ones(2, 4, 4), atol=1e-6)


def test_a_quotient_by_what_a_large_floor_changes_stays():
    assert [n.op for n in quotients.apply(by_norm(0.5)).nodes][2:] == ["MUL", "SQRT", "MAXIMUM", "DIV"]


def test_squares_are_products():
    nodes = node("SQUARED_DIFFERENCE", 3, 7, out=5), node("SQUARE", 5, out=6)
    graph = sums_and_products(*nodes, shapes=[(4, 4)] * 2, outputs=(6,), constants=[0.5])
    found = squares.apply(graph)
    found.check()
    assert [n.op for n in found.nodes][2:] == ["SUB", "MUL", "MUL"]
    assert_equal(graph, found)


def test_a_bias_of_four_dimensions_becomes_flat():
    weight, bias = np.random.default_rng(0).random((3, 4)), [[[[1.0, 2.0, 3.0]]]]
    layer = node("FULLY_CONNECTED", 3, 6, 7, out=5)
    graph = sums_and_products(layer, shapes=[(4, 3)], outputs=(5,), constants=[weight, bias])
    found = explicit_bias.apply(graph)
    assert found.tensors[found.nodes[-1].inputs[2]].shape == (3,)
    y = (1 + INPUT[:, 0]) @ torch.from_numpy(weight).float().T + torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(outputs_of(found)[5], y, atol=1e-6)
    assert torch.allclose(outputs_of(graph)[5], y, atol=1e-6)  # the exported graph, with its own bias, runs as well


WEIGHT = np.random.default_rng(1).random((3, 4)).astype(np.float32)


def added(*readers, term, **attrs):
    """[4, 3] of a layer in tensor 5, ``term`` added to it in tensor 6, and what else ``readers`` make in 7."""
    nodes = node("FULLY_CONNECTED", 3, 8, -1, out=5), Node("ADD", spec("ADD").attrs(**attrs), (9, 5), (6,)), *readers
    return sums_and_products(
        *nodes, shapes=[(4, 3), (4, 3), (4, 4)], outputs=(6, 7) if readers else (6,), constants=[WEIGHT, term, WEIGHT.T]
    )


def test_what_is_added_behind_a_layer_is_its_bias():
    for term in ([1.0, 2.0, 3.0], 0.5, [[-1.0, 0.0, 1.0]]):
        graph = added(term=term, fused_activation_function="RELU")
        found = bias_in_layer.apply(graph)
        found.check()
        assert [n.op for n in found.nodes] == ["ADD", "RESHAPE", "FULLY_CONNECTED"]
        assert_equal(graph, found)


def test_another_linear_takes_the_bias_out_again():
    graph = added(node("FULLY_CONNECTED", 5, 10, -1, out=7), term=[1.0, 2.0, 3.0])
    found = bias_in_layer.apply(graph)
    found.check()
    assert [n.op for n in found.nodes][2:] == ["FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert_equal(graph, found)


def test_what_a_bias_cannot_do_is_added():
    rows = added(term=np.ones((4, 1), np.float32))
    other = added(Node("MUL", spec("MUL").attrs(), (5, 5), (7,)), term=1.0)
    rectified = added(node("FULLY_CONNECTED", 5, 10, -1, out=7), term=[1.0, 2.0, 3.0], fused_activation_function="RELU")
    for graph in (rows, other, rectified):
        assert bias_in_layer.apply(graph) is graph


def test_few_rows_meet_many_the_other_way_round():
    rows = Node("SLICE", spec("SLICE").attrs(), (3, 7, 8), (5,))
    start, size = np.array([1, 0], np.int32), np.array([2, 4], np.int32)
    nodes = rows, product("BATCH_MATMUL", 5, 3, 6, adj_y=True)
    graph = sums_and_products(*nodes, shapes=[(2, 4), (2, 4)], outputs=(6,), constants=[start, size])
    found = few_rows.apply(graph, Sizes(many_rows=4))
    found.check()
    assert [n.op for n in found.nodes][3:] == ["BATCH_MATMUL", "TRANSPOSE"]
    assert found.nodes[3].inputs == (3, 5)
    assert_equal(graph, found)
    assert few_rows.apply(graph, Sizes(many_rows=5)) is graph


def test_a_product_that_the_converter_made_a_layer_is_turned_as_well():
    graph = sums_and_products(product("FULLY_CONNECTED", 3, 3, 5), shapes=[(4, 4)], outputs=(5,))
    found = prepared(graph, replace(INTEGER, times=replace(default_profile(), sizes=Sizes(many_rows=4))))
    assert [n.op for n in found.nodes].count("TRANSPOSE") == 1
    y = 1 + INPUT[:, 0]
    assert torch.allclose(outputs_of(found)[5], y @ y.transpose(1, 2), atol=1e-6)
