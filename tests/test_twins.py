"""Float nodes that compute the same twice."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.lower import quantized_file
from qhyvit.lowering.profiles import ids_of, with_islands
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import spec
from qhyvit.passes import equal_nodes
from qhyvit.plan import QuantPlan
from qhyvit.sim.run import Executor
from qhyvit.verify.census import census
from tests._graphs import ops


def in_float(graph, names):
    return with_islands(graph, "cpu", ids_of(graph, names))


def doubled():
    """x -> b = x - m; again = x - m, the right operand of a product with b; the product through a linear."""
    shapes = {"x": (1, 4, 8), "b": (1, 4, 8), "again": (1, 4, 8), "y": (1, 4, 4), "out": (1, 4, 3)}
    tensors = {i: Tensor(i, name, shape, "FLOAT32") for i, (name, shape) in enumerate(shapes.items())}
    generator = np.random.default_rng(0)
    constants = {"m": generator.normal(size=(1, 1, 8)), "w": generator.normal(size=(3, 4))}
    for name, data in constants.items():
        tensors[len(tensors)] = Tensor(len(tensors), name, data.shape, "FLOAT32", data.astype(np.float32))
    sub, product, layer = (spec(op).attrs for op in ("SUB", "BATCH_MATMUL", "FULLY_CONNECTED"))
    nodes = (
        Node("SUB", sub(), (0, 5), (1,)), Node("SUB", sub(), (0, 5), (2,)),
        Node("BATCH_MATMUL", product(adj_y=True), (1, 2), (3,)),
        Node("FULLY_CONNECTED", layer(keep_num_dims=True), (3, 6), (4,)),
    )  # fmt: skip
    return Graph(tensors, nodes, (0,), (4,))


@pytest.mark.parametrize("order", ["as written", "the other first"])
def test_the_second_of_two_float_nodes_goes(order):
    graph = doubled()
    if order != "as written":
        graph = replace(graph, nodes=(graph.nodes[1], graph.nodes[0], *graph.nodes[2:]))
    graph = in_float(graph, ("b", "again", "y"))
    lean = equal_nodes.apply(graph)
    assert ops(lean) == ["SUB", "BATCH_MATMUL", "FULLY_CONNECTED"]
    assert len(lean.islands) == 2
    assert lean.islands < graph.islands
    x = torch.rand(2, 4, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (Executor(g).run(x, None, [4])[4] for g in (graph, lean))
    assert torch.equal(before, after)


@pytest.mark.parametrize("floats", [(), ("b",), ("again",), ("b", "again")])
def test_what_int8_reads_keeps_its_own_range(floats):
    """Without the product in float, each of the two has int8 readers, and scales of its own."""
    graph = in_float(doubled(), floats)
    assert equal_nodes.apply(graph).nodes == graph.nodes


def test_one_that_int8_reads_too_stays_for_both():
    """b has an int8 reader beside the float product: ``again`` goes, whatever the order."""
    graph = doubled()
    other = Node("FULLY_CONNECTED", spec("FULLY_CONNECTED").attrs(keep_num_dims=True), (1, 7), (8,))
    more = {7: Tensor(7, "v", (3, 8), "FLOAT32", np.ones((3, 8), np.float32)), 8: Tensor(8, "z", (1, 4, 3), "FLOAT32")}
    for first, second in ((0, 1), (1, 0)):
        nodes = (graph.nodes[first], graph.nodes[second], *graph.nodes[2:], other)
        both = replace(graph, tensors={**graph.tensors, **more}, nodes=nodes, outputs=(4, 8))
        lean = equal_nodes.apply(in_float(both, ("b", "again", "y")))
        assert 2 not in lean.tensors
        assert lean.producer(3).inputs == (1, 1)
        assert lean.islands == {1, 3}


def test_the_one_that_stays_comes_before_all_its_readers():
    """``again`` is read before b is made, and b has an int8 reader: b stays, further in front."""
    graph = doubled()
    other = Node("FULLY_CONNECTED", spec("FULLY_CONNECTED").attrs(keep_num_dims=True), (1, 7), (8,))
    more = {7: Tensor(7, "v", (3, 8), "FLOAT32", np.ones((3, 8), np.float32)), 8: Tensor(8, "z", (1, 4, 3), "FLOAT32")}
    b, again, product, layer = graph.nodes
    nodes = (again, replace(product, inputs=(2, 2)), layer, b, other)
    late = replace(graph, tensors={**graph.tensors, **more}, nodes=nodes, outputs=(4, 8))
    lean = equal_nodes.apply(in_float(late, ("b", "again", "y")))
    assert ops(lean) == ["SUB", "BATCH_MATMUL", "FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert lean.nodes[0].outputs == (1,)
    assert lean.producer(3).inputs == (1, 1)


def test_nodes_that_differ_stay():
    graph = in_float(doubled(), ("b", "again", "y"))
    added = replace(graph.nodes[1], op="ADD", attrs=spec("ADD").attrs())
    other = replace(graph, nodes=(graph.nodes[0], added, *graph.nodes[2:]))
    assert equal_nodes.apply(other).nodes == other.nodes
    turned = replace(graph.nodes[1], inputs=(5, 0))
    other = replace(graph, nodes=(graph.nodes[0], turned, *graph.nodes[2:]))
    assert equal_nodes.apply(other).nodes == other.nodes


def test_the_file_has_one():
    graph = in_float(doubled(), ("b", "again", "y"))
    images = torch.rand(8, 4, 8, generator=torch.Generator().manual_seed(0))
    solution = method("minmax").search(Problem(equal_nodes.apply(graph), images), {"observer": "minmax"})
    data = quantized_file(solution.shipped, QuantPlan(solution.tensors, "minmax", profile="cpu"))
    assert census(data).ops[("SUB", "FLOAT32")] == 1
