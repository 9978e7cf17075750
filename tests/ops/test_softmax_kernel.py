"""The softmax kernel that reads int8, code by code: int8 out, and int16 out with a QUANTIZE behind it."""

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant
from qhyvit.sim.run import Executor
from qhyvit.tflite.islands import widened
from qhyvit.tflite.write import quantize
from qhyvit.verify.probe import make_interpreter, run

ROWS = 64


def softmax(positions):
    tensors = {i: Tensor(i, name, (ROWS, positions), "FLOAT32") for i, name in enumerate("xy")}
    return Graph(tensors, (Node("SOFTMAX", spec("SOFTMAX").attrs(), (0,), (1,)),), (0,), (1,))


@pytest.mark.parametrize("positions", [7, 256, 3136])
@pytest.mark.parametrize("wide", [False, True])
def test_every_code_is_the_kernels(positions, wide):
    rng = np.random.default_rng(positions)
    graph = widened(softmax(positions), ["y"]) if wide else softmax(positions)
    for _ in range(10):
        s_in = float(np.float32(10 ** rng.uniform(-3, 0.5)))
        codes = np.clip(rng.normal(0, rng.uniform(1, 60), (ROWS, positions)), -128, 127).astype(np.int8)
        x = torch.from_numpy(codes.astype(np.float64) * s_in)[None]
        (y,) = Executor(graph, torch.float64).apply(graph.nodes[0], [x])
        s_out = float(np.float32(float(y.max()) / 255)) if wide else 1 / 256
        quants = {"x": TensorQuant((s_in,), (0,)), "y": TensorQuant((s_out,), (-128,))}
        file = quantize(graph, QuantPlan(quants, "test", wide=("y",) if wide else ()))
        found = run(make_interpreter(file, "litert"), codes)
        mine = ExactQuant(graph, quants).codes(graph.tensors[1], y[0], graph.nodes[0])
        assert np.array_equal(mine, found.reshape(mine.shape).astype(np.int64))
