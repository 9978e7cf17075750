"""The int8 kernels of MEAN and SUM, code by code, where their results are ties and where they are not."""

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant, exact_codes
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import quantize
from qhyvit.verify.probe import make_interpreter, run
from tests._graphs import Builder

SHAPE = (1, 4, 8, 16)


@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (1, 2)])
@pytest.mark.parametrize("op", ["MEAN", "SUM"])
def test_every_code_is_the_kernels_even_at_ties(op, axes):
    rng, parted = np.random.default_rng(0), 0
    b = Builder(rng)
    b.tensors = []
    x = b.tensor("x", SHAPE)
    y = b.add(op, x, b.integers(*axes), keep_dims=True)
    graph = Graph({t.id: t for t in b.tensors}, tuple(b.nodes), (x,), (y,))
    for round_ in range(16):
        s_in = float(np.float32(10 ** rng.uniform(-3, 2)))
        size = (1.0 if op == "MEAN" else 8.0) * (0.5 if round_ % 2 else rng.uniform(0.05, 1.0))
        s_out, zero = float(np.float32(s_in * size)), int(rng.integers(-128, 128))
        middle = (-128, zero // 4)[round_ % 4 // 2]
        quants = {"x.0": TensorQuant((s_in,), (middle,)), b.tensors[y].name: TensorQuant((s_out,), (zero,))}
        codes = rng.integers(-40, 40, SHAPE).astype(np.int8)
        found = run(make_interpreter(quantize(graph, QuantPlan(quants, "test"))), codes)
        values = torch.from_numpy((codes.astype(np.float64) - middle) * s_in)
        real = Executor(graph, torch.float64).run(values)[y][0]
        assert np.array_equal(ExactQuant(graph, quants).codes(graph.tensors[y], real, graph.nodes[0]), found)
        parted += int((exact_codes(real, quants[b.tensors[y].name]) != found).sum())
    assert parted > 0
