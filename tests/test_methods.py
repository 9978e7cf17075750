"""Methods: the gradient is a signal, the search pays, constraints hold, bridges are found."""

import numpy as np
import pytest
import torch

from qhyvit.methods import all_methods, method
from qhyvit.methods._blocks import bridges
from qhyvit.methods._hessian import GradientPass, float_logits, mean_kl
from qhyvit.methods._problem import Problem
from qhyvit.methods._weights import search_weight
from qhyvit.plan import QuantPlan
from qhyvit.tflite.legal import check_plan, groups


@pytest.fixture(scope="module")
def problem(small, inputs):
    return Problem(small.graph, inputs[:8])


@pytest.fixture(scope="module")
def solutions(problem):
    return {name: method(name).search(problem, m.defaults) for name, m in all_methods().items()}


def test_every_solution_is_expressible(solutions):
    for name, solution in solutions.items():
        check_plan(solution.graph, QuantPlan(solution.tensors, name))


def test_the_gradient_is_taken_where_it_is_no_noise(problem, solutions):
    wanted = [t for g in groups(problem.graph) if not g.fixed for t in g.roots if problem.graph.producer(t)]

    def mean_gradient(quants):
        step = GradientPass(problem, quants, wanted).step(problem.images[:4])
        return float(np.mean([float(g.abs().mean()) for g in step.gradients.values()]))

    quantized, plain = mean_gradient(solutions["minmax"].tensors), mean_gradient({})
    assert quantized > 100 * plain


def test_the_search_beats_min_max_on_the_images_it_saw(problem, solutions):
    target = float_logits(problem.graph, problem)
    found = {name: mean_kl(problem.on(s.shipped), s.tensors, target) for name, s in solutions.items()}
    assert found["qhyvit"] < found["minmax"]


def test_the_search_is_the_same_twice(problem, solutions):
    again = method("qhyvit").search(problem, method("qhyvit").defaults)
    assert again.tensors == solutions["qhyvit"].tensors


def test_folds_are_made_only_where_the_objective_gains(problem, solutions):
    assert all(note.gain > 0 for note in solutions["qhyvit"].folds)
    without = method("qhyvit").search(problem, {**method("qhyvit").defaults, "folds": "none"})
    assert without.graph is problem.graph
    assert without.folds == ()


def test_three_bridge_blocks_as_the_paper_counts(small):
    found = bridges(small.graph)
    assert sum(b.entry for b in found) == small.facts["bridge_blocks"] == 3
    assert sum(not b.entry for b in found) == 3
    names = [small.graph.tensors[b.tensor].name for b in found if b.entry]
    assert all("conv_1x1" in n for n in names)


def test_weight_scales_are_the_best_of_all_shrinks():
    rng = np.random.default_rng(0)
    w = rng.standard_t(2, (5, 40)).astype(np.float32)
    energy = rng.random((5, 40))
    scale = search_weight(w, 0, energy)
    for o in range(5):
        tries = np.abs(w[o]).max() / 127 * np.linspace(0.5, 1.0, 51)
        errors = [(energy[o] * (w[o] - s * np.clip(np.rint(w[o] / s), -127, 127)) ** 2).sum() for s in tries]
        assert scale[o] == pytest.approx(tries[int(np.argmin(errors))], rel=1e-5)


def test_dead_channels_keep_their_bias():
    from qhyvit.methods._ranges import weight_scales

    scale = weight_scales(np.zeros((2, 3), np.float32), 0)
    assert (scale > 0).all()
    assert 5.0 / (0.01 * scale.min()) < 2**63  # finite; bias_floor bounds it by the bias itself


def test_progress_and_log_are_told(problem):
    said, shares = [], []
    talkative = Problem(problem.graph, problem.images[:4], progress=lambda w, s: shares.append(s), log=said.append)
    method("qhyvit").search(talkative, {**method("qhyvit").defaults, "rounds": 1, "folds": "none"})
    assert said
    assert all(0 <= s <= 1 for s in shares)


def test_torch_seed_is_not_touched(problem):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    method("minmax").search(problem, {"observer": "percentile"})
    assert torch.equal(torch.rand(1), expected)
