"""Every op with weights gets a bias [O], zeros where it had none: calibration then has a place to correct means.

The converter writes some biases as [1, 1, 1, O], where an addition behind the op became one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from qhyvit.passes.shared.graph_pass import Pass


def apply(graph: Graph) -> Graph:
    """Value-preserving; costs nothing at run time (kernels always add a bias)."""
    for node in graph.nodes:
        op = spec(node.op)
        if op.bias_input < 0:
            continue
        if len(node.inputs) > op.bias_input and node.inputs[op.bias_input] >= 0:
            graph = _flat(graph, node, op.bias_input)
            continue
        weight = graph.tensors[node.inputs[op.weight_input]]
        zeros = np.zeros(weight.shape[op.weight_axis], np.float32)
        graph, bias = edit.add_tensor(graph, f"{weight.name}.bias", zeros.shape, "FLOAT32", zeros)
        inputs = (*node.inputs[: op.bias_input], bias, *node.inputs[op.bias_input + 1 :])
        graph = edit.replace_node(graph, node, replace(node, inputs=inputs))
    return graph


def _flat(graph: Graph, node: Node, position: int) -> Graph:
    bias = graph.tensors[node.inputs[position]]
    if len(bias.shape) == 1 or not bias.is_constant:
        return graph
    values = graph.constant(bias.id).reshape(-1)
    graph, flat = edit.add_tensor(graph, bias.name, values.shape, bias.dtype, values)
    inputs = tuple(flat if i == position else t for i, t in enumerate(node.inputs))
    return edit.replace_node(graph, node, replace(node, inputs=inputs))


PASS = Pass(
    "explicit_bias",
    "every op with weights has a bias",
    apply,
    after=("batched_layers", "constant_product", "matrix_product"),
)
