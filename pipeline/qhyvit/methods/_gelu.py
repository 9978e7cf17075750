"""GELU as SiLU, where its own int8 kernel, which XNNPACK lacks, takes three times as long.

GELU(x) = x * Phi(x), and Phi(x) is within 0.01 of sigmoid(1.702 x) (Hendrycks and Gimpel, arXiv 1606.08415, section 2):
the two differ by 0.0204 at most, the size of an int8 code of values up to 5. With z = 1.702 x made by the layer in
front, z * sigmoid(z) is 1.702 times the result, one table of codes; the layers behind take the factor out of their
weights.
"""

from __future__ import annotations

import math

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.methods._patterns import is_layer, layers_behind
from qhyvit.methods._problem import Problem
from qhyvit.ops import spec
from qhyvit.ops._spec import FusedActivation

SLOPE = 1.702
LEAST_ELEMENTS = 1 << 12  # below, nothing is gained
COPIES = ("RESHAPE", "TRANSPOSE", "PAD")


def candidates(graph: Graph) -> list[Node]:
    """Large int8 GELUs right behind a layer, with nothing but layers behind them."""
    found = []
    for node in graph.nodes:
        if node.op != "GELU" or graph.is_float(node):
            continue
        layer, out = graph.producer(node.inputs[0]), graph.tensors[node.outputs[0]]
        if layer is None or not is_layer(graph, layer) or graph.users(node.inputs[0]) != (node,):
            continue
        linear = layer.attrs.fused_activation_function == FusedActivation.NONE
        large = math.prod(out.shape) >= LEAST_ELEMENTS
        if linear and large and layers_behind(graph, out.id, COPIES):
            found.append(node)
    return found


def as_silu(graph: Graph, node: Node) -> Graph:
    """The graph with z * sigmoid(z) in the place of a candidate."""
    layer, out = graph.producer(node.inputs[0]), graph.tensors[node.outputs[0]]
    assert layer is not None
    z = node.inputs[0]
    for position in (spec(layer.op).weight_input, spec(layer.op).bias_input):
        if position < len(layer.inputs) and layer.inputs[position] >= 0:
            graph, layer = edit.times_constant(graph, layer, position, SLOPE)
    for behind in layers_behind(graph, out.id, COPIES) or ():
        graph, _ = edit.times_constant(graph, behind, spec(behind.op).weight_input, 1 / SLOPE)
    graph, gate = edit.add_tensor(graph, f"{out.name}/sigmoid", out.shape, out.dtype)
    sigmoid = Node("LOGISTIC", spec("LOGISTIC").attrs(), (z,), (gate,), node.block)
    product = Node("MUL", spec("MUL").attrs(), (z, gate), node.outputs, node.block)
    return edit.insert_before(edit.replace_node(graph, node, product), product, sigmoid)


def as_silus(problem: Problem) -> Problem:
    """Every candidate of the problem's graph as SiLU; its log says where."""
    graph = problem.graph
    for node in candidates(graph):
        graph = as_silu(graph, node)
        problem.log(f"GELU {graph.tensors[node.outputs[0]].name}: as SiLU of {SLOPE} times its input")
    graph.check()
    return problem.on(graph)
