"""Ranges of outputs: by the distance itself, which brute force finds as well."""

from dataclasses import replace

import pytest
import torch

from qhyvit.lowering.contracts import groups
from qhyvit.methods import qhyvit
from qhyvit.methods.shared.learning import learn
from qhyvit.methods.shared.output_ranges import MEASURED, NEARLY, OF_EXTREME, output_quants
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.range_search import first_ranges
from qhyvit.methods.shared.ranges import ends, group_quant, minmax_weights, spread
from qhyvit.methods.shared.state import State
from qhyvit.sim.fakequant import fake_quantize
from qhyvit.tasks import task
from tests._graphs import random_graph

IMAGES = torch.rand(8, 4, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tiny():
    return Problem(random_graph(["silu of layer", "depthwise"], 1), IMAGES)


def distance(problem, quant):
    return float(problem.lowered.distance(problem.targets, fake_quantize(problem.targets, quant)).double().mean())


def with_outputs(problem, targets):
    """The problem with other outputs as its reference."""
    return Problem(problem.graph, problem.images, targets, task("classify"))


def long_tailed(problem):
    """One likely class, and many small logits that are unlikely together."""
    targets = torch.full(problem.targets.shape, -6.0)
    targets += torch.randn(targets.shape, generator=torch.Generator().manual_seed(1))
    targets[:, 0] += 12
    return with_outputs(problem, targets)


@pytest.mark.parametrize("made", [lambda problem: problem, long_tailed])
def test_no_other_range_of_those_tried_is_nearer(tiny, made):
    problem = made(tiny)
    ((group, quant),) = output_quants(problem, groups(problem.graph), "search").items()
    assert set(group.members) & set(problem.graph.outputs)
    lowest, highest = min(0.0, float(problem.targets.min())), max(0.0, float(problem.targets.max()))
    pairs = [(low * lowest, high * highest) for low in OF_EXTREME for high in OF_EXTREME]
    best = min(distance(problem, group_quant(group, *pair, "")) for pair in pairs)
    assert distance(problem, quant) <= 1.1 * NEARLY**2 * best + 1e-7  # twice nearly: each end in turn, among all pairs


def test_small_logits_are_not_cut_off(tiny):
    problem = long_tailed(tiny)
    (quant,) = output_quants(problem, groups(problem.graph), "search").values()
    low, high = ends(quant)
    assert low <= float(problem.targets.quantile(0.25))
    assert high >= float(problem.targets.max())


def test_an_output_that_the_network_goes_on_with_is_left_to_the_objective(tiny):
    graph = tiny.graph
    last = graph.nodes[-1]
    inner = next(t for t in last.inputs if not graph.tensors[t].is_constant)
    both = Problem(replace(graph, outputs=(inner, *graph.outputs)), IMAGES, task=task("raw"))
    (group,) = output_quants(both, groups(both.graph), "search")
    assert set(group.members) & set(graph.outputs)
    assert inner not in group.members


def test_ranges_are_symmetric_where_that_is_wanted(tiny):
    (quant,) = output_quants(tiny, groups(tiny.graph), "symmetric").values()
    assert quant.zero_point == (0,)


def test_outputs_with_a_prescribed_scale_keep_it(tiny):
    fixed = [replace(group, fixed=(1 / 256, -128)) for group in groups(tiny.graph)]
    assert output_quants(tiny, fixed, "search") == {}


@pytest.mark.parametrize(("ends", "measured"), [("independent", True), ("joint", False)])
def test_the_rounds_end_with_measured_outputs_but_for_the_papers_own(tiny, ends, measured):
    start = State(tiny.graph, {**spread(tiny.graph, first_ranges(tiny)), **minmax_weights(tiny.graph)})
    behind = qhyvit._Ends(QhyvitOptions(search_images=6, ends=ends)).best_round(tiny, start)
    output = behind.quants[tiny.graph.tensors[tiny.graph.outputs[0]].name]
    assert (output.choice.observer == MEASURED) == measured


def test_measured_ranges_do_not_learn(tiny):
    start = State(tiny.graph, {**spread(tiny.graph, first_ranges(tiny)), **minmax_weights(tiny.graph)})
    before = qhyvit._Ends(QhyvitOptions(search_images=6)).best_round(tiny, start)
    after = learn(tiny, before.solution.shipped, before.quants, 3)
    output = tiny.graph.tensors[tiny.graph.outputs[0]].name
    assert after[output] == before.quants[output]
    assert any(after[name] != quant for name, quant in before.quants.items())
