"""Ranges of ops that grow without bound towards 0: as far as int8 tells an operand from 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph
from qhyvit.lowering.contracts import groups
from qhyvit.lowering.profiles import with_islands
from qhyvit.methods import method
from qhyvit.methods.shared.hessian import GradientPass
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.problem import Batch, Problem
from qhyvit.methods.shared.unbounded import largest_results, limits_of
from qhyvit.observers import all_observers
from qhyvit.plan import QuantPlan
from qhyvit.run_graph import run
from qhyvit.sim.run import Executor
from tests._graphs import Builder

LEVELS = {8: 255, 6: 63, 4: 15}


def normalised() -> tuple[Graph, int, int]:
    """x over the root of its mean square, with no eps; the squares' mean and the root's reciprocal."""
    b = Builder(np.random.default_rng(0))
    x = b.add("CONV_2D", b.input, b.constant(6, 1, 1, 3), -1)
    power = b.add("MEAN", b.add("MUL", x, x), b.integers(3), keep_dims=True)
    root = b.add("RSQRT", power)
    y = b.add(
        "MUL", x, b.add("MUL", root, b.tensor("halves", (1, 1, 1, 6), data=np.full((1, 1, 1, 6), 0.5, np.float32)))
    )
    return b.graph(b.linear(b.add("MEAN", y, b.integers(1, 2)), 4)), power, root


def images(*, with_zero: bool) -> torch.Tensor:
    """Of similar power everywhere, but for a pixel of nothing."""
    x = torch.randn(6, 4, 4, 3, generator=torch.Generator().manual_seed(1))
    x = x / x.norm(dim=-1, keepdim=True)
    if with_zero:
        x[2, 1, 3] = 0
    return x


def powers(graph: Graph, power: int, x: torch.Tensor) -> torch.Tensor:
    """The mean squares, by torch."""
    weight = torch.from_numpy(graph.constant(graph.nodes[0].inputs[1]))[:, 0, 0]
    return (x @ weight.T).square().mean(-1)


def of(found: dict, tensor: int) -> tuple[float, float]:
    return next(r for g, r in found.items() if tensor in g.members)


@pytest.mark.parametrize("bits", LEVELS)
@pytest.mark.parametrize("name", sorted(all_observers()))
def test_no_observer_goes_beyond_what_a_step_of_the_operand_gives(name, bits):
    graph, power, root = normalised()
    problem = Problem(graph, images(with_zero=True), bits=bits)
    found = observe(problem, groups(graph), name)
    most = (max(of(found, power)[1], 0) / LEVELS[bits]) ** -0.5
    assert of(found, root)[1] <= most * (1 + 1e-6)
    if name == "minmax":
        seen = powers(graph, power, images(with_zero=True))
        assert of(found, power)[1] == pytest.approx(float(seen.max()), rel=1e-5)
        assert of(found, root) == (pytest.approx(float(seen.max()) ** -0.5, rel=1e-4), pytest.approx(most, rel=1e-6))


def test_what_lies_within_is_observed_as_it_is():
    graph, power, root = normalised()
    x = images(with_zero=False)
    found = observe(Problem(graph, x), groups(graph), "minmax")
    seen = powers(graph, power, x)
    assert float(seen.min()) > float(seen.max()) / 255  # more than a step
    assert of(found, root)[1] == pytest.approx(float(seen.min()) ** -0.5, rel=1e-4)


def test_limits_are_those_of_the_operands_range_and_of_what_goes_beyond_it():
    graph, power, root = normalised()
    ranges = {g: (-1.0, 4.0) if power in g.members else (-3.0, 1e7) for g in groups(graph)}
    assert limits_of(graph, ranges, 8) == {root: pytest.approx((5 / 255) ** -0.5)}
    assert limits_of(graph, ranges, 4) == {root: pytest.approx((5 / 15) ** -0.5)}
    inside = {g: (0.0, (5 / 255) ** -0.5) if root in g.members else r for g, r in ranges.items()}
    assert limits_of(graph, inside, 8) == {}
    assert limits_of(graph, inside, 8, [root]) == {root: pytest.approx((5 / 255) ** -0.5)}
    assert limits_of(graph, dict.fromkeys(groups(graph), (0.0, 0.0)), 8) == {}


def test_what_is_made_of_a_result_that_is_cut_is_smaller_too():
    """A norm's root goes through its gain before it meets the values."""
    graph, power, root = normalised()
    x = images(with_zero=True)
    found = observe(Problem(graph, x), groups(graph), "minmax")
    gained = next(n.outputs[0] for n in graph.nodes if root in n.inputs)
    assert of(found, gained)[1] == pytest.approx(of(found, root)[1] / 2, rel=1e-6)
    assert of(found, power)[1] == pytest.approx(float(powers(graph, power, x).max()), rel=1e-5)


def test_roots_of_roots_are_bounded_one_by_what_is_left_of_the_other():
    b = Builder(np.random.default_rng(0))
    x = b.add("CONV_2D", b.input, b.constant(6, 1, 1, 3), -1)
    power = b.add("MEAN", b.add("MUL", x, x), b.integers(3), keep_dims=True)
    first = b.add("RSQRT", power)
    second = b.add("RSQRT", first)
    graph = b.graph(b.linear(b.add("MEAN", second, b.integers(1, 2)), 4))
    x = images(with_zero=True)
    found = observe(Problem(graph, x), groups(graph), "minmax")
    high = float(powers(graph, power, x).max())
    assert of(found, first)[1] == pytest.approx((high / 255) ** -0.5, rel=1e-5)
    roots = powers(graph, power, x).clamp_min(high / 255) ** -0.5
    assert of(found, second) == pytest.approx(tuple(float(f(roots**-0.5)) for f in (torch.min, torch.max)), rel=1e-4)


def test_float_and_int16_islands_tell_more_from_0():
    graph, _, root = normalised()
    ranges = dict.fromkeys(groups(graph), (0.0, 1e7))
    for profile in ("cpu", "integer"):
        island = with_islands(graph, profile, [root])
        assert limits_of(island, ranges, 8) == {}
        assert largest_results(island, minmax_of(graph).tensors) == {}


def minmax_of(graph: Graph, *, with_zero: bool = True):
    chosen = method("minmax")
    return chosen.search(Problem(graph, images(with_zero=with_zero)), chosen.defaults)


def test_results_are_bounded_by_the_step_that_the_plan_has():
    graph, power, root = normalised()
    quants = minmax_of(graph).tensors
    step = quants[graph.tensors[power].name].scale[0]
    assert largest_results(graph, quants) == {root: pytest.approx(step**-0.5)}
    assert largest_results(graph, {}) == {}


def test_statistics_of_a_search_are_bounded_too():
    graph, power, root = normalised()
    x = images(with_zero=True)
    problem, quants = Problem(graph, x), minmax_of(graph).tensors
    gained = next(n.outputs[0] for n in graph.nodes if root in n.inputs)
    step = GradientPass(problem, quants, [power, root, gained]).step(Batch(0, x, problem.targets))
    most = quants[graph.tensors[power].name].scale[0] ** -0.5
    whole = Executor(graph).run(x, None, [root])[root]
    assert float(whole.max()) > 1e6
    assert torch.equal(step.values[root], whole.clamp_max(most))
    assert torch.equal(step.values[gained], whole.clamp_max(most) * 0.5 * torch.ones(6))


def lost(graph: Graph) -> float:
    """Share of the outputs' variance that min-max with a pixel of nothing among the images loses on others."""
    solution, x = minmax_of(graph), images(with_zero=False)[:4].double().numpy()
    exact = run(graph, x)
    found = run(solution.shipped, x, QuantPlan(solution.tensors, "minmax"))
    return float(((found - exact) ** 2).mean() / exact.var(axis=0).mean())


def test_a_pixel_of_nothing_leaves_codes_for_all_others(monkeypatch):
    graph, _, _ = normalised()
    assert lost(graph) < 0.1
    monkeypatch.setattr("qhyvit.methods.shared.observe.limits_of", lambda *_: {})
    assert lost(graph) > 0.9  # up to 1e10, one code for all roots
