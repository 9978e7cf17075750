"""The int8 PRELU kernel, code by code, over random grids."""

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops._spec import NoAttrs
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant, exact_codes
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import constants_on_grid_of, quantize
from qhyvit.verify.probe import make_interpreter, run

CODES = np.repeat(np.arange(-128, 128, dtype=np.int8)[None, :, None], 6, axis=2)


def test_every_code_is_the_kernels():
    rng, parted = np.random.default_rng(0), 0
    for _ in range(40):
        alpha = rng.uniform(-0.5, 1.5, (1, 1, 6)).astype(np.float32)
        graph = Graph(
            {0: Tensor(0, "x", CODES.shape, "FLOAT32"), 1: Tensor(1, "alpha", alpha.shape, "FLOAT32", alpha),
             2: Tensor(2, "y", CODES.shape, "FLOAT32")},
            (Node("PRELU", NoAttrs(), (0, 1), (2,)),), (0,), (2,),
        )  # fmt: skip
        s_in, z_in = float(np.float32(10 ** rng.uniform(-3, 1))), int(rng.integers(-100, 100))
        s_out = float(np.float32(s_in * rng.uniform(0.4, 1.5)))
        quants = {"x": TensorQuant((s_in,), (z_in,)), "alpha": TensorQuant((float(np.float32(2 / 255)),), (-60,)),
                  "y": TensorQuant((s_out,), (int(rng.integers(-60, 60)),))}  # fmt: skip
        found = run(make_interpreter(quantize(graph, QuantPlan(quants, "test")), "litert"), CODES)
        on_grid = constants_on_grid_of(graph, quants)
        x = torch.from_numpy((CODES.astype(np.float64) - z_in) * s_in)[None]
        operands = [x, torch.from_numpy(on_grid.constant(1).astype(np.float64))[None]]
        (y,) = Executor(on_grid, torch.float64).apply(graph.nodes[0], operands)
        mine = ExactQuant(on_grid, quants).codes(graph.tensors[2], y[0], graph.nodes[0], operands)
        assert np.array_equal(mine.reshape(found.shape), found.astype(np.int64))
        parted += int((exact_codes(y[0], quants["y"]).reshape(found.shape) != found).sum())
    assert parted > 0  # else rounding alone would do
