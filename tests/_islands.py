"""Graphs of ops in a row and profiles of made-up times: where islands of float kernels pay."""

import numpy as np

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency import KernelTime, LatencyProfile
from qhyvit.ops import spec

ELEMENTS = 400  # a softmax over more is always float


def line(*ops):
    """x -> ops in a row -> FULLY_CONNECTED, which ends the graph and keeps its weights int8."""
    count = len(ops)
    tensors = {i: Tensor(i, f"t{i}", (1, ELEMENTS), "FLOAT32") for i in range(count + 2)}
    weight = Tensor(99, "w", (ELEMENTS, ELEMENTS), "FLOAT32", np.zeros((ELEMENTS, ELEMENTS), np.float32))
    nodes = [Node(op, spec(op).attrs(), (i,), (i + 1,)) for i, op in enumerate(ops)]
    last = Node("FULLY_CONNECTED", spec("FULLY_CONNECTED").attrs(), (count, 99), (count + 1,))
    return Graph({**tensors, 99: weight}, (*nodes, last), (0,), (count + 1,))


def made_up(border_us=1.0, **us):
    """A profile with these microseconds a call: GELU_int8=3 is the kernel ``GELU int8``."""
    kernels = {k.replace("_", " "): KernelTime(fixed_us=v) for k, v in us.items()}
    borders = dict.fromkeys(("DEQUANTIZE int8>float32", "QUANTIZE float32>int8"), KernelTime(fixed_us=border_us))
    return LatencyProfile("made up", kernels={**kernels, **borders})
