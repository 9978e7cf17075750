"""Value-preserving edits on graphs of a few nodes."""

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.rewrites import matrix_product, own_right_operand, rewrite
from qhyvit.sim.run import Executor


def product(op, left, right, out, **attrs):
    return Node(op, spec(op).attrs(**attrs), (left, right, *([-1] if op == "FULLY_CONNECTED" else [])), (out,))


def sums_and_products(*nodes, shapes, outputs):
    """y = x + 1, [1, 1, 4, 4] -> [4, 4], and what ``nodes`` make of tensor 3 = y."""
    tensors = [
        Tensor(0, "x", (1, 1, 4, 4), "FLOAT32"), Tensor(1, "one", (), "FLOAT32", np.array(1, np.float32)),
        Tensor(2, "sum", (1, 1, 4, 4), "FLOAT32"), Tensor(3, "y", (4, 4), "FLOAT32"),
        Tensor(4, "shape", (2,), "INT32", np.array([4, 4], np.int32)),
        *[Tensor(5 + i, f"t{i}", shape, "FLOAT32") for i, shape in enumerate(shapes)],
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
    assert "FULLY_CONNECTED" not in [n.op for n in rewrite(graph).nodes]


def test_a_fused_activation_keeps_a_layer_a_layer():
    layer = product("FULLY_CONNECTED", 3, 3, 5, fused_activation_function="RELU")
    graph = sums_and_products(layer, shapes=[(4, 4)], outputs=(5,))
    assert matrix_product.apply(graph).nodes == graph.nodes


def test_products_share_their_right_operand():
    two = product("BATCH_MATMUL", 3, 3, 5), product("BATCH_MATMUL", 5, 3, 6)
    graph = sums_and_products(*two, shapes=[(4, 4), (4, 4)], outputs=(6,))
    found = own_right_operand.apply(graph)
    assert [n.op for n in found.nodes].count("ADD") == 2
    first, second = (n for n in found.nodes if n.op == "BATCH_MATMUL")
    assert first.inputs[1] == second.inputs[1] != first.inputs[0]
    assert_equal(graph, found)


def test_a_right_operand_that_nobody_else_reads_stays():
    scale = Node("MUL", spec("MUL").attrs(), (0, 1), (7,))
    flat = Node("RESHAPE", spec("RESHAPE").attrs(), (7, 4), (6,))
    two = product("BATCH_MATMUL", 6, 3, 5), product("BATCH_MATMUL", 5, 3, 8)
    graph = sums_and_products(scale, flat, *two, shapes=[(4, 4), (4, 4), (1, 1, 4, 4), (4, 4)], outputs=(8,))
    assert own_right_operand.apply(graph).nodes == graph.nodes
