"""The int8 RSQRT kernel, code by code, over scales as norms have them."""

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops._spec import NoAttrs
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant, exact_codes
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import quantize
from qhyvit.verify.probe import make_interpreter, run


def test_every_code_is_the_kernels_even_near_ties():
    rng, parted = np.random.default_rng(0), 0
    graph = Graph(
        {0: Tensor(0, "x", (1, 256), "FLOAT32", None), 1: Tensor(1, "y", (1, 256), "FLOAT32", None)},
        (Node("RSQRT", NoAttrs(), (0,), (1,), ""),), (0,), (1,),
    )  # fmt: skip
    codes = np.arange(-128, 128, dtype=np.int8)[None]
    for _ in range(60):
        s_in = float(np.float32(10 ** rng.uniform(-3, 6)))
        s_out = float(np.float32(1 / np.sqrt(s_in * rng.uniform(3, 120)) / 255))
        quants = {"x": TensorQuant((s_in,), (-128,)), "y": TensorQuant((s_out,), (-128,))}
        found = run(make_interpreter(quantize(graph, QuantPlan(quants, "test")), "litert"), codes).ravel()
        x = torch.from_numpy((codes.astype(np.float64) + 128) * s_in)[None]
        node = graph.nodes[0]
        (y,) = Executor(graph, torch.float64).apply(node, [x])
        mine = ExactQuant(graph, quants).codes(graph.tensors[1], y[0], node).ravel()
        assert np.array_equal(mine, found.astype(np.int64))
        parted += int((exact_codes(y[0], quants["y"]).ravel() != found).sum())
    assert parted > 0  # else rounding alone would do
