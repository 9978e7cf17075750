"""Every op with weights gets a bias, zeros where it had none: calibration then has a place to correct means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph
from qhyvit.ops import spec
from qhyvit.rewrites._rewrite import Rewrite


def apply(graph: Graph) -> Graph:
    """Value-preserving; costs nothing at run time (kernels always add a bias)."""
    for node in graph.nodes:
        op = spec(node.op)
        if op.bias_input < 0 or (len(node.inputs) > op.bias_input and node.inputs[op.bias_input] >= 0):
            continue
        weight = graph.tensors[node.inputs[op.weight_input]]
        zeros = np.zeros(weight.shape[op.weight_axis], np.float32)
        graph, bias = edit.add_tensor(graph, f"{weight.name}.bias", zeros.shape, "FLOAT32", zeros)
        inputs = (*node.inputs[: op.bias_input], bias, *node.inputs[op.bias_input + 1 :])
        graph = edit.replace_node(graph, node, replace(node, inputs=inputs))
    return graph


REWRITE = Rewrite("explicit_bias", "every op with weights has a bias", apply)
