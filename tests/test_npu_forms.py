"""Forms of ops that an NPU computes faster, against the cycles that its compiler estimates for each form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.folds import all_folds
from qhyvit.folds.shared.factor_layers import as_layers
from qhyvit.graph.ir import Graph
from qhyvit.lowering.lower import quantized_file
from qhyvit.lowering.profiles import placed
from qhyvit.methods import method
from qhyvit.methods.shared.folding import Candidate, apply
from qhyvit.methods.shared.problem import Problem
from qhyvit.passes import prepared
from qhyvit.plan import QuantPlan
from qhyvit.sim.run import Executor
from qhyvit.targets import Target, target
from qhyvit.targets.shared.target import PLAIN
from tests._graphs import Builder
from tests._plans import graph_of

NEVER = 10**9


def reading(*shape: int) -> Builder:
    b = Builder(np.random.default_rng(3))
    b.tensors.clear()
    b.input = b.tensor("input", (1, *shape))
    return b


def silu(side: int, channels: int) -> Graph:
    """A convolution, SiLU and another convolution on a map."""
    b = reading(side, side, 16)
    x = b.conv(b.input, channels)
    y = b.conv(b.add("MUL", x, b.add("LOGISTIC", x)), 24)
    return graph_of(b, b.linear(b.add("MEAN", y, b.integers(1, 2)), 5))


def weights_of_attention(rows: int, positions: int) -> Graph:
    """A softmax, and the layer that takes its factor up."""
    b = reading(rows, positions)
    return graph_of(b, b.linear(b.add("SOFTMAX", b.input), 8))


def problem_of(graph: Graph, found: Target) -> Problem:
    images = torch.randn(2, *graph.tensors[graph.inputs[0]].shape[1:], generator=torch.Generator().manual_seed(1))
    return Problem(placed(prepared(graph, found), found), images, target=found)


def split(problem: Problem) -> Problem:
    """The problem with its only SiLU split, as a search does it."""
    (place,) = all_folds()["silu_split"].places(problem.graph)
    problem, notes = apply(problem, [Candidate("silu_split", place, np.linspace(0.5, 1.0, place.channels), 1.0)])
    assert [n.fold for n in notes] == ["silu_split"]
    return problem


def cycles(problem: Problem) -> int:
    """What Vela estimates for the file by minimum and maximum."""
    pytest.importorskip("ethosu.vela", reason="needs qhyvit[ethos-u]")
    from qhyvit.verify.vela import compiled

    solution = method("minmax").search(problem, {"fast_gelu": False})
    plan = QuantPlan(solution.tensors, "minmax", target=problem.target.called, int16=solution.int16)
    return compiled(quantized_file(solution.shipped, plan), problem.target).cycles


def with_sizes(found: Target, **sizes: int) -> Target:
    return replace(found, sizes=replace(found.latency.sizes, **sizes))


@pytest.mark.parametrize(("name", "side", "channels"), [
    ("ethos-u55-256", 32, 64), ("ethos-u55-256", 16, 64), ("ethos-u55-256", 8, 128), ("ethos-u55-64", 32, 64),
    ("ethos-u65-256", 32, 64), ("ethos-u65-256", 16, 64), ("ethos-u65-512", 32, 64), ("ethos-u85-512", 32, 64),
])  # fmt: skip
def test_a_factor_a_channel_has_the_form_that_the_compiler_finds_faster(name: str, side: int, channels: int) -> None:
    found, graph = target(name), silu(side, channels)
    product, layer = (cycles(split(problem_of(graph, with_sizes(found, factor_layers=n)))) for n in (NEVER, 0))
    assert product != layer
    assert cycles(split(problem_of(graph, found))) == min(product, layer)


@pytest.mark.parametrize("name", ["ethos-u55-256", "ethos-u65-256"])
@pytest.mark.parametrize("shape", [(4, 16), (256, 64)])
def test_a_softmax_has_the_form_that_the_compiler_finds_faster(name: str, shape: tuple[int, int]) -> None:
    found, graph = target(name), weights_of_attention(*shape)
    kept, unrolled = (cycles(problem_of(graph, replace(found, sizes=s))) for s in (PLAIN, found.sizes))
    assert unrolled < kept


@pytest.mark.parametrize(("name", "form"), [("ethos-u55", "layer"), ("ethos-u85", "product"), ("litert", "product")])
def test_a_split_computes_the_same_in_either_form(name: str, form: str) -> None:
    before = problem_of(silu(16, 64), target(name))
    after = split(before)
    restored = next(t for t in after.graph.tensors.values() if t.name.endswith(".restore"))
    maker = after.graph.producer(restored.id)
    assert maker is not None
    assert maker.op == {"layer": "DEPTHWISE_CONV_2D", "product": "MUL"}[form]
    expected, rows = (Executor(p.graph, torch.float64).rows(before.images) for p in (before, after))
    assert float((rows - expected).abs().max()) < 3e-6 * float(expected.abs().max())


@pytest.mark.parametrize("kind", ["small", "of a position", "of an activation", "of tokens", "with a ReLU"])
def test_other_products_stay(kind: str) -> None:
    b = reading(4, 4, 6)
    x = b.tokens(b.input) if kind == "of tokens" else b.input
    shape = {"of a position": (1, 4, 4, 1), "of tokens": (1, 1, 6)}.get(kind, (1, 1, 4, 6))
    factor = np.broadcast_to(np.arange(1, 1 + shape[-1], dtype=np.float32), shape).copy()
    if kind == "of a position":
        factor = np.arange(16, dtype=np.float32).reshape(shape)
    other = b.add("TANH", x) if kind == "of an activation" else b.tensor("factor", shape, data=factor)
    y = b.add("MUL", x, other, **({"fused_activation_function": "RELU"} if kind == "with a ReLU" else {}))
    graph = graph_of(b, b.linear(y, 5))
    assert as_layers(graph, 97 if kind == "small" else 0) is graph
    if kind == "small":
        assert next(n.op for n in as_layers(graph, 96).nodes) == "DEPTHWISE_CONV_2D"
