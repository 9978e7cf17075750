"""SOFTMAX of ops that XNNPACK has in int8, where its own kernel, which XNNPACK lacks, takes longer.

With z = x - max(x) and l = log sum exp(z), softmax(x) = exp(z - l). ELU(z) is exp(z) - 1 for z <= 0, and one table of
256 codes in int8; the sum is a FULLY_CONNECTED op with ones as weights, in a 32-bit accumulator; the logarithm is
taken of one number a row. K times the softmax is what comes out, K the largest power of two that keeps it below 1 on
the calibration images: so its codes are as fine as the values allow, where SOFTMAX has steps of 1/256 whatever they
are. The next layer's weights are divided by K.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.methods._problem import Problem
from qhyvit.ops import spec
from qhyvit.sim.run import Executor

LEAST_ELEMENTS = 1 << 15  # below, one kernel is as fast as eight
COPIES = ("RESHAPE", "TRANSPOSE")
PRODUCTS = ("BATCH_MATMUL", "MUL")


def candidates(graph: Graph) -> list[Node]:
    """Softmax nodes that are worth it: int8 with many elements, or int16, with a layer behind that takes a factor."""
    found = []
    for node in graph.nodes:
        if node.op != "SOFTMAX" or node.attrs.beta != 1.0:
            continue
        out, has_layer = graph.tensors[node.outputs[0]], _next_layer(graph, node.outputs[0]) is not None
        large = not graph.is_float(node) and math.prod(out.shape) >= LEAST_ELEMENTS
        if has_layer and (large or out.id in graph.wide):
            found.append(node)
    return found


def _next_layer(graph: Graph, tensor: int) -> Node | None:
    """The only layer that reads ``tensor``, through copies and products; None: there is none."""
    users = graph.users(tensor)
    if len(users) != 1 or tensor in graph.outputs:
        return None
    (node,) = users
    if spec(node.op).weight_input >= 0 and node.inputs[0] == tensor:
        return node
    passes = node.op in COPIES or (node.op in PRODUCTS and node.inputs.count(tensor) == 1)
    return _next_layer(graph, node.outputs[0]) if passes else None


def _peaks(problem: Problem, nodes: list[Node]) -> dict[int, float]:
    """Largest value of each softmax on the calibration images."""
    executor, tensors = Executor(problem.graph), [n.outputs[0] for n in nodes]
    found = dict.fromkeys(tensors, 0.0)
    with torch.no_grad():
        for images in problem.batches():
            values = executor.run(images, None, tensors)
            found = {t: max(found[t], float(values[t].max())) for t in tensors}
    return found


def _divided(graph: Graph, layer: Node, factor: float) -> Graph:
    """``layer`` with its weights divided by ``factor``."""
    position = spec(layer.op).weight_input
    graph, layer = edit.own_constant(graph, layer, position)
    weight = layer.inputs[position]
    return edit.with_constants(graph, {weight: graph.constant(weight) / np.float32(factor)})


def unrolled(graph: Graph, node: Node, factor: float) -> Graph:
    """The graph with ``factor`` times the softmax, made of the ops above, in the place of ``node``."""
    out = graph.tensors[node.outputs[0]]
    count, name, rows = out.shape[-1], out.name, (*out.shape[:-1], 1)
    nodes: list[Node] = []

    def constant(label: str, data: np.ndarray) -> int:
        nonlocal graph
        graph, t = edit.add_tensor(graph, f"{name}/{label}", data.shape, data.dtype.name.upper(), data)
        return t

    def add(op: str, label: str, inputs: tuple[int, ...], shape: tuple[int, ...], **attrs: bool) -> int:
        nonlocal graph
        graph, t = edit.add_tensor(graph, f"{name}/{label}", shape, out.dtype)
        nodes.append(Node(op, spec(op).attrs(**attrs), inputs, (t,), node.block))
        return t

    x = node.inputs[0]
    axis = constant("axis", np.array([len(out.shape) - 1], np.int32))
    weight = constant("ones", np.full((1, count), 1 / factor, np.float32))
    bias = constant("count", np.array([count / factor], np.float32))
    one = constant("one", np.ones((1,), np.float32))
    largest = add("REDUCE_MAX", "max", (x, axis), rows, keep_dims=True)
    z = add("SUB", "sub", (x, largest), out.shape)
    first = add("ELU", "elu", (z,), out.shape)
    total = add("FULLY_CONNECTED", "sum", (first, weight, bias), rows, keep_num_dims=True)
    log = add("LOG", "log", (total,), rows)
    normal = add("SUB", "sub", (z, log), out.shape)
    second = add("ELU", "elu", (normal,), out.shape)
    nodes.append(Node("ADD", spec("ADD").attrs(), (second, one), node.outputs, node.block))
    for new in nodes:
        graph = edit.insert_before(graph, node, new)
    left = node.outputs[0]
    nodes_left = tuple(n for n in graph.nodes if n is not node)
    return replace(graph, nodes=nodes_left, floats=graph.floats - {left}, wide=graph.wide - {left})


def unroll(problem: Problem) -> Problem:
    """Every candidate of the problem's graph unrolled; its log says where."""
    nodes = candidates(problem.graph)
    if not nodes:
        return problem
    peaks, graph = _peaks(problem, nodes), problem.graph
    for node in nodes:
        factor = 2.0 ** math.floor(-math.log2(min(peaks[node.outputs[0]], 1.0)))  # float32 may say 1 + 1e-7
        graph = unrolled(graph, node, factor)
        layer = _next_layer(graph, node.outputs[0])
        assert layer is not None
        graph = _divided(graph, layer, factor)
        problem.log(f"softmax {graph.tensors[node.outputs[0]].name}: int8 ops of XNNPACK, times {factor:g}")
    graph.check()
    return problem.on(graph)
