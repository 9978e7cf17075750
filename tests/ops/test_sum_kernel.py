"""The int8 kernels of ADD and SUB, code by code, over scales as residuals and gates have them."""

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.ops._elementwise import ElementwiseAttrs
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant, exact_codes
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import quantize
from qhyvit.verify.probe import make_interpreter, run


def sum_of_two_halves(op, fused):
    """The input's two halves, added or subtracted."""
    shapes = {"x": (1, 1, 256, 2), "a": (1, 1, 256, 1), "b": (1, 1, 256, 1), "y": (1, 1, 256, 1)}
    tensors = [Tensor(i, name, shape, "FLOAT32") for i, (name, shape) in enumerate(shapes.items())]
    for i in (0, 1):
        tensors.append(Tensor(4 + i, f"begin{i}", (4,), "INT32", np.array([0, 0, 0, i], np.int32)))
    tensors.append(Tensor(6, "size", (4,), "INT32", np.array([1, 1, 256, 1], np.int32)))
    halves = [Node("SLICE", spec("SLICE").attrs(), (0, 4 + i, 6), (1 + i,)) for i in (0, 1)]
    nodes = (*halves, Node(op, ElementwiseAttrs(fused), (1, 2), (3,)))
    return Graph({t.id: t for t in tensors}, nodes, (0,), (3,))


@pytest.mark.parametrize(("op", "fused"), [("ADD", "NONE"), ("SUB", "NONE"), ("ADD", "RELU6"), ("SUB", "RELU")])
def test_every_code_is_the_kernels_even_near_ties(op, fused):
    rng, parted = np.random.default_rng(0), 0
    graph = sum_of_two_halves(op, fused)
    for round_ in range(24):
        codes = rng.integers(-128, 128, (1, 1, 256, 2)).astype(np.int8)
        s_in = float(np.float32(10 ** rng.uniform(-3, 3)))
        # steps that are multiples of each other bring ties, others bring what multipliers of 21 bits leave out
        s_out = s_in * 2.0 if round_ % 2 else float(np.float32(s_in * rng.uniform(0.2, 40)))
        same = TensorQuant((s_in,), (int(rng.integers(-128, 128)),))
        quants = {"x": same, "a": same, "b": same, "y": TensorQuant((s_out,), (int(rng.integers(-128, 128)),))}
        found = run(make_interpreter(quantize(graph, QuantPlan(quants, "test")), "litert"), codes).ravel()
        x = torch.from_numpy((codes.astype(np.float64) - same.zero_point[0]) * s_in)
        hook = ExactQuant(graph, quants)
        y = Executor(graph, torch.float64).run(x, hook)[3]
        mine = np.rint(y.numpy().ravel() / s_out) + quants["y"].zero_point[0]
        assert np.array_equal(mine, found)
        plain = Executor(graph, torch.float64).run(x)[3]
        parted += int((exact_codes(plain, quants["y"]).ravel() != found).sum())
    assert parted > 0  # else rounding alone would do
