"""Methods: the gradient is a signal, the search pays, constraints hold, bridges are found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.lowering.contracts import check_plan, groups
from qhyvit.methods import method, qhyvit
from qhyvit.methods.shared import learning
from qhyvit.methods.shared.bridge_blocks import BridgeBlock, bridge_blocks, bridges
from qhyvit.methods.shared.hessian import Capture, GradientPass, mean_distance
from qhyvit.methods.shared.learning import learn
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.patterns import before
from qhyvit.methods.shared.pixels import pixel_quant
from qhyvit.methods.shared.problem import Batch, Problem
from qhyvit.methods.shared.qhyvit_options import QhyvitOptions
from qhyvit.methods.shared.range_search import ranges_behind
from qhyvit.methods.shared.ranges import group_quant
from qhyvit.methods.shared.state import State
from qhyvit.methods.shared.weight_rounding import search_weight
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan
from qhyvit.sim.run import Executor
from qhyvit.store import Piece, Store
from qhyvit.tasks import task
from tests._graphs import random_graph


@pytest.fixture(scope="module")
def problem(small, inputs):
    return Problem(small.graph, inputs[:8])


@pytest.fixture(scope="module")
def few(small, inputs):
    return Problem(small.graph, inputs[:4])


@pytest.fixture(scope="module")
def tiny():
    """Blocks whose kinds the search knows: what it promises of any network is shown on one that is searched fast."""
    graph = random_graph(["affine norm", "silu of layer", "softmax attention", "residual norm", "depthwise"], 1)
    return Problem(graph, torch.rand(10, 4, 4, 3, generator=torch.Generator().manual_seed(0)), seed=3)


ONLY_RANGES = {"fast_softmax": False, "folds": "none", "int16_ms": 0, "rounds": 2, "learn": 0}
QUICK = {**method("qhyvit").defaults, "rounds": 2, "learn": 4, "search_images": 6}


@pytest.fixture(scope="module")
def solutions(few):
    minmax, options = method("minmax"), {**QUICK, "learn": 1, "search_images": 3}
    return {"minmax": minmax.search(few, minmax.defaults), "qhyvit": method("qhyvit").search(few, options)}


def test_every_solution_is_expressible(solutions):
    for name, solution in solutions.items():
        check_plan(solution.graph, QuantPlan(solution.tensors, name))


def test_the_gradient_is_taken_where_it_is_no_noise(problem, solutions):
    wanted = [t for g in groups(problem.graph) if not g.fixed for t in g.roots if problem.graph.producer(t)]

    def mean_gradient(quants):
        step = GradientPass(problem, quants, wanted).step(Batch(0, problem.images[:4], problem.targets[:4]))
        return float(np.mean([float(g.abs().mean()) for g in step.gradients.values()]))

    quantized, plain = mean_gradient(solutions["minmax"].tensors), mean_gradient({})
    assert quantized > 100 * plain


def test_the_search_beats_min_max_on_the_images_it_saw(few, solutions):
    found = {name: mean_distance(few.on(s.shipped), s.tensors) for name, s in solutions.items()}
    assert found["qhyvit"] < found["minmax"]


def test_folds_are_made_only_where_the_objective_gains(solutions, tiny):
    assert all(note.gain > 0 for note in solutions["qhyvit"].folds)
    assert method("qhyvit").search(tiny, QUICK).folds
    without = method("qhyvit").search(tiny, {**QUICK, **ONLY_RANGES})
    assert without.graph is tiny.graph
    assert without.folds == ()


def test_behind_folds_only_what_a_sigmoid_alone_reads_is_clipped(problem, monkeypatch):
    monkeypatch.setattr("qhyvit.methods.shared.range_search.SIGMOID_FLAT", 1e-3)  # every range is wider
    graph = problem.graph
    seen = observe(problem, groups(graph), "percentile")
    for group, quant in ranges_behind(problem, {}, {}).items():
        low, high = seen[group]
        if graph.inputs[0] in group.members:
            assert quant == pixel_quant(problem.images)
            continue
        if group.fixed is None and not any(u.op == "LOGISTIC" for t in group.members for u in graph.users(t)):
            assert quant == group_quant(group, low, high, "percentile")  # the logits too, which nobody reads


def test_three_bridge_blocks_as_the_paper_counts(small):
    found = bridges(small.graph)
    assert sum(b.entry for b in found) == small.facts["bridge_blocks"] == 3
    assert sum(not b.entry for b in found) == 3
    names = [small.graph.tensors[b.tensor].name for b in found if b.entry]
    assert all("conv_1x1" in n for n in names)


def test_a_bridge_block_reaches_from_the_bridge_to_the_next_layers(small):
    graph = small.graph
    for block in bridge_blocks(graph):
        assert block.inside[0] == block.bridge.tensor
        assert block.outputs or not block.bridge.entry  # an exit may go straight into a sum with the local part
        for t in block.outputs:
            assert spec(graph.producer(t).op).weight_input >= 0
            assert graph.producer(t).inputs[0] in block.inside
        for t in block.inside[1:]:
            assert spec(graph.producer(t).op).weight_input < 0


def _passes(graph, tensor, value):
    return value.detach() > 0 if graph.producer(tensor).attrs.fused_activation_function == "RELU" else 1.0


def test_the_hybrid_weights_are_what_reaches_the_blocks_output(problem, solutions):
    """Mean of (J^T (g v))^2 over random signs v = sum_o (g_o J_oi)^2, J from autograd itself."""
    graph, quants = problem.graph, solutions["minmax"].tensors
    block = next(b for b in bridge_blocks(graph) if b.bridge.entry)
    (source,) = {before(graph, graph.producer(o).inputs[0]) for o in block.outputs}  # query, key, value read one norm
    wanted = [source, *block.outputs]
    images, target = problem.images[:1], problem.targets[:1]
    plain = GradientPass(problem, quants, wanted).step(Batch(0, images, target)).gradients
    kept = Capture(quants, wanted)  # what passes a fused activation passes it in the quantized network
    Executor(constants_on_grid_of(graph, quants)).run(images, kept)
    passes = GradientPass(problem, quants, wanted, [BridgeBlock(block.bridge, (source,), block.outputs)])
    draws = torch.stack([passes.step(Batch(i, images, target)).gradients[source] for i in range(60)])
    mean_square = (draws**2).mean(dim=0).sum(dim=tuple(range(draws.dim() - 2)))  # [C]
    expected = torch.zeros_like(mean_square)
    for t in block.outputs:  # linears: J is the weight, o x c
        w = torch.from_numpy(constants_on_grid_of(graph, quants).constant(graph.producer(t).inputs[1])).flatten(1)
        g2 = (plain[t] ** 2 * _passes(graph, t, kept.kept[t])).reshape(-1, w.shape[0]).sum(dim=0)
        expected += (g2[:, None] * w**2).sum(dim=0)
    assert float((mean_square.sum() / expected.sum() - 1).abs()) < 0.15


def test_a_stopped_search_goes_on_from_its_last_piece(tiny, tmp_path):
    class StoppedError(Exception):
        pass

    def stop_in(what, at):
        def progress(label, share):
            if label.startswith(what) and share > at:
                raise StoppedError

        return progress

    store, said = Store(tmp_path / "part"), []
    store.open("key")
    unbroken = method("qhyvit").search(tiny, QUICK)
    for what, at in (("round 2", 0.0), ("reconstruct", 0.5), ("learn", 0.0)):
        with pytest.raises(StoppedError):
            method("qhyvit").search(replace(tiny, store=store, progress=stop_in(what, at)), QUICK)
    found = method("qhyvit").search(replace(tiny, store=store, log=said.append), QUICK)
    assert not any(line.startswith("round") for line in said)  # nothing was made twice
    assert found.tensors == unbroken.tensors
    assert [n.place for n in found.folds] == [n.place for n in unbroken.folds] != []
    assert all(np.array_equal(found.constants[name], data) for name, data in unbroken.constants.items())


def test_learning_goes_on_at_the_step_where_it_was_stopped(tmp_path, monkeypatch):
    class StoppedError(Exception):
        pass

    monkeypatch.setattr(learning, "KEEP_SECONDS", 0.0)
    steps = 7
    graph = random_graph(["silu", "softmax attention"], 1)
    problem = Problem(graph, torch.rand(10, 4, 4, 3, generator=torch.Generator().manual_seed(0)), seed=3)
    start = method("minmax").search(problem, method("minmax").defaults)
    unbroken = learn(problem.on(start.graph), start.graph, start.tensors, steps)
    assert unbroken != start.tensors
    store, seen = Store(tmp_path / "part"), []
    store.open("key")

    def stop(_, share):
        seen.append(round(share * steps))
        if len(seen) % 2 == 0:  # one step of each run is done
            raise StoppedError

    for _ in range(steps - 1):
        with pytest.raises(StoppedError):
            learn(replace(problem.on(start.graph), store=store, progress=stop), start.graph, start.tensors, steps)
    assert seen == [step for i in range(steps - 1) for step in (i, i + 1)]
    last = learn(replace(problem.on(start.graph), store=store), start.graph, start.tensors, steps)
    assert last == unbroken


def test_learned_scales_lower_the_kl_on_the_images_they_saw(small_v2, inputs):
    """At 6 bits: at 8, one step's rounding noise is as large as what a few steps gain in so small a network."""
    coarse, minmax = Problem(small_v2.graph, inputs[:4], bits=6), method("minmax")
    start = minmax.search(coarse, minmax.defaults)
    learned = learn(coarse.on(start.graph), start.shipped, start.tensors, 24)
    before, after = (mean_distance(coarse.on(start.shipped), q) for q in (start.tensors, learned))
    assert after < 0.7 * before
    check_plan(start.graph, QuantPlan(learned, "qhyvit"))


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
    from qhyvit.methods.shared.ranges import weight_scales

    scale = weight_scales(np.zeros((2, 3), np.float32), 0)
    assert (scale > 0).all()
    assert 5.0 / (0.01 * scale.min()) < 2**63  # finite; bias_floor bounds it by the bias itself


def test_progress_and_log_are_told(tiny):
    said, shares = [], []
    talkative = Problem(tiny.graph, tiny.images[:4], progress=lambda w, s: shares.append(s), log=said.append)
    method("qhyvit").search(talkative, {**QUICK, "rounds": 1, "folds": "none"})
    assert said
    assert all(0 <= s <= 1 for s in shares)


def test_torch_seed_is_not_touched(problem):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    method("minmax").search(problem, {"observer": "percentile"})
    assert torch.equal(torch.rand(1), expected)


def test_judges_are_images_that_the_search_has_not_seen(problem):
    def keys(found):
        return {image.numpy().tobytes() for image in found.images}

    every, seen, unseen = keys(problem), keys(problem.searched(5)), keys(problem.unseen(5, 99))
    assert (len(every), len(seen), len(unseen)) == (8, 5, 3)
    assert seen | unseen == every
    few = problem.unseen(5, 2)
    assert len(few.images) == 2
    assert keys(few) <= unseen
    pairs = zip(few.images, few.targets, strict=True)
    for image, target in pairs:
        at = next(i for i, one in enumerate(problem.images) if torch.equal(one, image))
        assert torch.equal(problem.targets[at], target)
    # nobody is left: those that the search sees
    assert keys(problem.unseen(8, 3)) == keys(problem.unseen(32, 99)) == every


@pytest.mark.parametrize("views", [1, 2])
def test_judges_of_a_thorough_task_are_pictures_that_the_search_sees_in_no_view(tiny, views):
    pictures = torch.arange(20.0)[:, None, None, None].expand(-1, *tiny.images.shape[1:]) / 20
    problem = Problem(tiny.graph, torch.cat([pictures, pictures + 0.01][:views]), task=task("raw"), seed=5, views=views)

    def shown(found):
        return [round(float(image[0, 0, 0]) * 100) // 5 for image in found.images]

    seen, unseen = shown(problem.searched(4)), shown(problem.unseen(4, 99))
    assert (len(seen), len(unseen)) == (18 * views, 2 * views)
    assert not set(seen) & set(unseen)
    assert sorted(seen + unseen) == sorted([*range(20)] * views)
    drawn = problem.some(9)  # single views: the rest of a picture may not be among them
    assert len(drawn.searched(4).images) + len(drawn.unseen(4, 99).images) == 9
    few = Problem(tiny.graph, problem.images[:7], task=task("raw"))
    assert few.searched(4) is few.unseen(4, 99) is few


@pytest.mark.parametrize(("phase", "tried"), [("closed_form", 2), ("learned", 3)])
@pytest.mark.parametrize("helps", [True, False])
def test_unseen_images_decide_whether_a_phase_is_taken(problem, monkeypatch, phase, tried, helps):
    """What is worse on the images of the closed form, and better on the others, is taken; and the other way round."""
    options = QhyvitOptions(search_images=4)
    judged = []

    def found(some, quants):
        judged.append(some.images)
        return 1.0 / len(judged) if helps else float(len(judged))

    state = State(problem.graph, {})
    ends = qhyvit._Ends(options)
    monkeypatch.setattr(qhyvit, "mean_distance", found)
    monkeypatch.setattr(qhyvit, "learn", lambda *args: {})
    better = replace(state, far=True)
    monkeypatch.setattr(qhyvit._Ends, "_solved", lambda *args: better)
    kept = getattr(ends, phase)(problem, state)
    assert kept == replace(better if helps else state, judged=1.0 / tried if helps else 1.0)
    assert len(judged) == tried
    seen = {image.numpy().tobytes() for image in problem.searched(4).images}
    assert not seen & {image.numpy().tobytes() for images in judged for image in images}


def test_a_state_that_was_judged_is_not_judged_again(problem, monkeypatch):
    judged = []
    monkeypatch.setattr(qhyvit, "mean_distance", lambda some, quants: judged.append(some) or 0.5)
    monkeypatch.setattr(qhyvit, "learn", lambda *args: {})
    monkeypatch.setattr(qhyvit._Ends, "_solved", lambda self, problem, state, *args: replace(state, judged=None))
    state = State(problem.graph, {}, judged=0.25)
    assert qhyvit._Ends(QhyvitOptions(search_images=4)).learned(problem, state) == state
    assert len(judged) == 2  # of the learned scales, and of the weights behind them
    kept = State.unpack(Piece(*state.pack()))
    assert kept.judged == 0.25  # a search that goes on compares with the same number


@pytest.mark.parametrize(("seen", "calls"), [(9, 1), (10, 0), (32, 0)])
def test_scales_are_learned_where_images_are_left_to_judge_them(tiny, monkeypatch, seen, calls):
    called = []
    monkeypatch.setattr(qhyvit, "learn", lambda p, graph, quants, steps: called.append(steps) or dict(quants))
    said: list[str] = []
    method("qhyvit").search(replace(tiny, log=said.append), {**QUICK, "rounds": 1, "search_images": seen})
    assert called == calls * [4 * 3]  # four passes over ten images, four at once
    assert any(line.startswith("scales are not learned: the search sees all 10 images") for line in said) != bool(calls)


def test_scales_learn_twice_as_long_where_every_output_counts(tiny, monkeypatch):
    called = []
    monkeypatch.setattr(qhyvit, "learn", lambda p, graph, quants, steps: called.append(steps) or dict(quants))
    assert tiny.measure is not None
    thorough = replace(tiny, measure=replace(tiny.measure, thorough=True))
    method("qhyvit").search(thorough, {**QUICK, "rounds": 1})
    assert called == [2 * 4 * 3]  # twice four passes over ten images, four at once


def test_fast_is_what_its_options_say(tiny):
    spelled = {"rounds": 2, "search_images": 16, "learn": 0}
    fast, slow = (method("qhyvit").search(tiny, options) for options in ({"fast": True}, spelled))
    assert fast.tensors == slow.tensors
    assert all(np.array_equal(fast.constants[name], data) for name, data in slow.constants.items())
    assert QhyvitOptions(fast=True, rounds=1, search_images=4).effective == QhyvitOptions(
        rounds=1, search_images=4, learn=0
    )
    assert QhyvitOptions().effective == QhyvitOptions()
    (proposal,) = QhyvitOptions(fast=True, rounds=7).proposals()
    assert proposal.options == QhyvitOptions(rounds=7)


def test_batches_come_in_their_order_alone_and_in_pairs(problem):
    said = []
    several = replace(problem, batch=3, progress=lambda label, share: said.append((label, share)))
    alone = [*several.each(lambda batch: (batch.number, len(batch.images)))]
    pairs = [*several.in_pairs(lambda batch: (batch.number, len(batch.images)), "look")]
    count = len(problem.images)
    assert alone == [(i, min(3, count - 3 * i)) for i in range(-(-count // 3))]
    assert pairs == [alone[i : i + 2] for i in range(0, len(alone), 2)]
    assert said == [("look", i / len(alone)) for i in range(0, len(alone), 2)]
