"""Long means and sums in two steps: the same value, and right codes on every kernel."""

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.lower import quantized_file
from qhyvit.ops.shared.reduce import ReducerAttrs
from qhyvit.passes.short_reductions import LONGEST, apply, neighbours
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.run import Executor
from qhyvit.verify.probe import make_interpreter, run

SHAPE = (1, 1024, 96)


def _graph(op, axes, keep_dims):
    out = tuple(1 if i in axes else s for i, s in enumerate(SHAPE) if keep_dims or i not in axes)
    tensors = {
        0: Tensor(0, "x", SHAPE, "FLOAT32"),
        1: Tensor(1, "axes", (len(axes),), "INT32", np.array(axes, np.int32)),
        2: Tensor(2, "y", out, "FLOAT32"),
    }
    return Graph(tensors, (Node(op, ReducerAttrs(keep_dims=keep_dims), (0, 1), (2,), ""),), (0,), (2,), facts={})


@pytest.mark.parametrize("op", ["MEAN", "SUM"])
@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2), (2,), (1,)])
@pytest.mark.parametrize("keep_dims", [True, False])
def test_the_value_and_the_shape_stay(op, axes, keep_dims):
    graph = _graph(op, axes, keep_dims)
    split = apply(graph)
    split.check()
    x = torch.randn(2, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    for before, after in zip(Executor(graph).run(x).values(), Executor(split).run(x).values(), strict=True):
        assert before.shape == after.shape
        assert torch.allclose(before, after, rtol=1e-4, atol=1e-3 if op == "SUM" else 1e-6)
    for node in split.nodes:
        shape = split.tensors[node.inputs[0]].shape
        assert neighbours(shape, tuple(int(a) for a in split.constant(node.inputs[1]))) <= LONGEST
    assert len(split.nodes) == (2 if neighbours(SHAPE, axes) > LONGEST else 1)


@pytest.mark.parametrize("code", [-128, -100, -66, 10, 64, 80, 127])
def test_the_file_gives_the_codes_whose_mean_is_far_from_zero(code):
    """One step over all 98,304 values gives -128 or 127 on processors whose kernel is the AVX2 one."""
    graph = apply(_graph("MEAN", (0, 1, 2), True))
    quants = {t.name: TensorQuant((1.0,), (0,)) for t in graph.activations()}
    file = make_interpreter(quantized_file(graph, QuantPlan(quants, "test")), "litert")
    assert run(file, np.full(SHAPE, code, np.int8)).ravel().tolist() == [code]


def test_what_is_short_is_left_alone():
    graph = _graph("MEAN", (2,), True)
    assert apply(graph).nodes == graph.nodes
    assert neighbours((1, 64, 64, 32), (1, 2)) == 1
    assert neighbours((1, 64, 64, 1), (1, 2)) == 64 * 64
