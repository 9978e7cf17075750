"""Ranges that were narrowed too much are taken back, by the distance itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qhyvit.lowering.contracts import groups
from qhyvit.methods.qhyvit import _first
from qhyvit.methods.shared.hessian import mean_distance
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.ranges import ends, finish, group_quant, minmax_weights, spread
from qhyvit.methods.shared.round import Round
from qhyvit.methods.shared.taken_back import taken_back
from qhyvit.sim.run import Executor
from tests._layer_graphs import CHANNELS, SIZE, Maker


@pytest.fixture
def problem() -> Problem:
    m = Maker()
    x = m.image
    for _ in range(3):
        x = m.conv(x, CHANNELS, 3, fused_activation_function="RELU")
    x = m.conv(x, CHANNELS)
    images = torch.randn(8, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    return Problem(m.logits(x), images, log=lambda text: lines.append(text))


lines: list[str] = []


@pytest.fixture
def good(problem: Problem):
    graph = problem.graph
    ranges = observe(problem, groups(graph), "minmax")
    chosen = {group: group_quant(group, low, high, "minmax") for group, (low, high) in ranges.items()}
    return {**spread(graph, chosen), **minmax_weights(graph)}


def names(problem: Problem) -> list[str]:
    return [problem.graph.tensors[n.outputs[0]].name for n in problem.graph.nodes[:4]]


def finer(quant, by):
    return replace(quant, scale=tuple(s / by for s in quant.scale))


def test_what_was_cut_off_comes_back_and_the_rest_stays(problem, good):
    """One range became far too narrow, another is better than it was: only the first is as before."""
    _, second, third, _ = names(problem)
    before = {**good, third: finer(good[third], 1 / 8)}
    after = {**good, second: finer(good[second], 20)}
    found = taken_back(problem, before, after)
    assert found[second] == good[second]
    assert found[third] == after[third]
    distances = [mean_distance(problem, finish(problem.graph, q)) for q in (after, found)]
    assert distances[1] < distances[0] / 10
    assert lines[-1].endswith("1 of 2 that were narrowed")


def test_a_round_that_made_it_better_is_kept_whole(problem, good):
    wide = {**good, **{n: finer(good[n], 1 / 30) for n in names(problem)}}
    assert taken_back(problem, wide, good) is good


def test_what_was_not_there_before_is_not_touched(problem, good):
    _, second, third, _ = names(problem)
    after = {**good, second: finer(good[second], 20), third: finer(good[third], 20)}
    found = taken_back(problem, {third: good[third]}, after)
    assert found[second] == after[second]


def test_wider_ranges_are_no_reason_to_look(problem, good):
    after = {**good, **{n: finer(good[n], 0.2) for n in names(problem)}}
    assert taken_back(problem, good, after) is after


def test_all_that_share_a_scale_get_it_back():
    """A view of the tensor came in with an edit, and has no range from before."""
    m = Maker()
    x = m.conv(m.image, CHANNELS, fused_activation_function="RELU")
    view = m.op("RESHAPE", x, m.ints(1, SIZE * SIZE, CHANNELS))
    graph = m.logits(m.conv(m.op("RESHAPE", view, m.ints(1, SIZE, SIZE, CHANNELS)), CHANNELS))
    problem = Problem(graph, torch.randn(8, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0)))
    ranges = observe(problem, groups(graph), "minmax")
    chosen = {group: group_quant(group, low, high, "minmax") for group, (low, high) in ranges.items()}
    wide = {**spread(graph, chosen), **minmax_weights(graph)}
    shared = [graph.tensors[t].name for g in groups(graph) if x in g.members for t in g.members]
    assert len(shared) == 3
    narrow = {**wide, **{n: finer(wide[n], 20) for n in shared}}
    found = taken_back(problem, {shared[0]: wide[shared[0]]}, narrow)
    assert [found[n] for n in shared] == [wide[n] for n in shared]


def test_ranges_behind_folds_hold_what_images_show_that_the_search_did_not_see():
    """A channel that is nearly nothing on the images that a search sees gets a large scale, and a range to fit."""
    m = Maker()
    x = m.conv(m.image, CHANNELS, 3, fused_activation_function="RELU")
    for _ in range(2):
        x = m.conv(x, CHANNELS, 3, fused_activation_function="RELU")
    problem = Problem(m.logits(x), torch.randn(12, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0)))
    options = QhyvitOptions(rounds=2, search_images=1, learn=0)
    # all images but the one that is seen are ten times as large
    seen = problem.searched(1).images
    is_seen = (problem.images == seen).flatten(1).all(1)
    problem = Problem(problem.graph, torch.where(is_seen[:, None, None, None], problem.images, 10 * problem.images))
    state = _first(problem)
    for number in range(2):
        state = Round(number, options)(problem, state)
    assert state.notes
    values = Executor(state.graph).run(problem.images, None, [t.id for t in state.graph.activations()])
    scaled = [t for t in state.graph.activations() if state.quants[t.name].choice.observer == "percentile"]
    assert scaled
    for tensor in scaled:
        _, high = ends(state.quants[tensor.name])
        assert high > 0.5 * float(values[tensor.id].max()), tensor.name


@pytest.mark.parametrize("seen", [1, 5, 12])
def test_images_that_a_round_did_not_search_on_judge_it_where_there_are_such(problem, monkeypatch, seen):
    judges = []

    def spy(given, before, after):
        judges.append(given.images)
        return after

    monkeypatch.setattr("qhyvit.methods.shared.round.taken_back", spy)
    images = torch.randn(12, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    whole = Problem(problem.graph, images)
    Round(0, QhyvitOptions(search_images=seen))(whole, _first(whole))
    (shown,) = judges
    searched = {row.numpy().tobytes() for row in whole.searched(seen).images}
    both = searched & {row.numpy().tobytes() for row in shown}
    assert len(both) == (0 if seen < len(images) else len(images))
