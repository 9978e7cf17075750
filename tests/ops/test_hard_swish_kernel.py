"""The int8 HARD_SWISH kernel, code by code, over random grids."""

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant, exact_codes
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import quantize
from qhyvit.verify.probe import make_interpreter, run


def test_every_code_is_the_kernels():
    rng, parted = np.random.default_rng(0), 0
    graph = Graph(
        {0: Tensor(0, "x", (1, 256), "FLOAT32", None), 1: Tensor(1, "y", (1, 256), "FLOAT32", None)},
        (Node("HARD_SWISH", spec("HARD_SWISH").attrs(), (0,), (1,), ""),), (0,), (1,),
    )  # fmt: skip
    codes = np.arange(-128, 128, dtype=np.int8)[None]
    for _ in range(80):
        width, middle = 10 ** rng.uniform(-0.5, 1.6), rng.uniform(0.05, 0.95)
        s_in, z_in = float(np.float32(width / 255)), round(-128 + middle * 255)
        high = max((127 - z_in) * s_in, 0.1)
        s_out, z_out = float(np.float32((high + 0.375) / 255)), round(-128 + 0.375 / (high + 0.375) * 255)
        quants = {"x": TensorQuant((s_in,), (z_in,)), "y": TensorQuant((s_out,), (z_out,))}
        found = run(make_interpreter(quantize(graph, QuantPlan(quants, "test")), "litert"), codes).ravel()
        x = torch.from_numpy((codes.astype(np.float64) - z_in) * s_in)[None]
        node = graph.nodes[0]
        (y,) = Executor(graph, torch.float64).apply(node, [x])
        mine = ExactQuant(graph, quants).codes(graph.tensors[1], y[0], node, [x]).ravel()
        assert np.array_equal(mine, found.astype(np.int64)), (s_in, z_in, s_out, z_out)
        parted += int((exact_codes(y[0], quants["y"]).ravel() != found).sum())
    assert parted > 0  # else rounding alone would do
