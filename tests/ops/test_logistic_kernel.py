"""The int8 LOGISTIC kernel, code by code, on grids that bring a code next to a tie."""

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops._spec import NoAttrs
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import ExactQuant, exact_codes
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import quantize
from qhyvit.verify.probe import make_interpreter, run

GRAPH = Graph(
    {0: Tensor(0, "x", (1, 256), "FLOAT32", None), 1: Tensor(1, "y", (1, 256), "FLOAT32", None)},
    (Node("LOGISTIC", NoAttrs(), (0,), (1,), ""),), (0,), (1,),
)  # fmt: skip
CODES = np.arange(-128, 128, dtype=np.int8)[None]


def codes_of(scale, zero_point):
    """The kernel's codes, ours, and those of the real result rounded."""
    quants = {"x": TensorQuant((scale,), (zero_point,)), "y": TensorQuant((1 / 256,), (-128,))}
    found = run(make_interpreter(quantize(GRAPH, QuantPlan(quants, "test")), "litert"), CODES).ravel()
    x = torch.from_numpy((CODES.astype(np.float64) - zero_point) * scale)[None]
    node = GRAPH.nodes[0]
    (y,) = Executor(GRAPH, torch.float64).apply(node, [x])
    mine = ExactQuant(GRAPH, quants).codes(GRAPH.tensors[1], y[0], node).ravel()
    return found.astype(np.int64), mine, exact_codes(y[0], quants["y"]).ravel()


def test_every_code_of_any_grid_is_the_kernels():
    rng = np.random.default_rng(0)
    for _ in range(100):
        found, mine, _ = codes_of(float(np.float32(10 ** rng.uniform(-3, 1.5))), int(rng.integers(-128, 128)))
        assert np.array_equal(mine, found)


def test_ties_that_only_float32_sees():
    rng, plain, ours = np.random.default_rng(1), 0, 0
    for _ in range(150):
        share, code = (rng.integers(1, 255) + 0.5) / 256, int(rng.integers(1, 120))
        scale = float(np.float32(abs(np.log(share / (1 - share))) / code))  # the sigmoid of ``code`` steps is a tie
        found, mine, rounded = codes_of(max(scale, 1e-4), 0)
        plain, ours = plain + int((rounded != found).sum()), ours + int((mine != found).sum())
    assert plain > 100
    assert ours <= plain // 50  # where the kernel's tanh is off by a last bit
