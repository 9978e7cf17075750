"""What a fold would gain: tensors that share a scale are counted together, parts of a stream with their channels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit import affine
from qhyvit.folds import all_folds
from qhyvit.folds.shared.fold import Place
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.methods import method
from qhyvit.methods.shared.folding import _all_together, _for_all, _lost_by_all, _Together, candidates
from qhyvit.methods.shared.hessian import Statistics, Step
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.range_search import RangeSearch, first_ranges
from qhyvit.methods.shared.ranges import ends
from qhyvit.methods.shared.state import State
from qhyvit.observers.shared.histogram import Histogram
from qhyvit.observers.shared.search import search, widened
from qhyvit.ops import spec
from qhyvit.plan import TensorQuant
from qhyvit.sim.fakequant import fake_quantize
from qhyvit.sim.run import Executor
from qhyvit.store import Piece
from qhyvit.tasks import task


def seen(values, seed=0):
    """Statistics of tensors with these values [rows, C], gradients drawn."""
    random = torch.Generator().manual_seed(seed)
    statistics = Statistics(values, values)
    gradients = {t: torch.randn(x.shape, generator=random) for t, x in values.items()}
    statistics.add([Step(values, gradients, torch.zeros(1))], 1)
    return statistics, gradients


def drawn(channels, peaks, seed):
    x = torch.randn(400, channels, generator=torch.Generator().manual_seed(seed))
    return x * torch.as_tensor(peaks, dtype=torch.float32)


def test_the_error_of_a_shared_scale_is_that_of_all_who_share_it():
    """Against the sum of w (x - Q(x / r) r)^2 over the values themselves."""
    values = {0: drawn(4, [8, 1, 1, 1], 1), 1: drawn(2, [1, 30], 2), 2: drawn(3, [2, 2, 2], 3)}
    statistics, gradients = seen(values)
    r = np.array([1.0, 0.2, 0.3, 0.25])
    position = {0: np.arange(4), 1: np.array([2, -1])}
    together = _Together(tuple(position.items()), (2,))
    found = together.best(together.pool(statistics), r, 8)
    quant = TensorQuant((float(found.params.scale),), (int(found.params.zero_point),))
    lost = 0.0
    for t, x in values.items():
        p = position.get(t, np.full(x.shape[1], -1))
        divisor = torch.as_tensor(np.where(p >= 0, r[p], 1.0), dtype=torch.float32)
        error = fake_quantize(x / divisor, quant) * divisor - x
        lost += float((gradients[t] ** 2 * error**2).sum())
    assert found.error == pytest.approx(lost, rel=0.03)


@pytest.mark.parametrize("others", [False, True])
def test_one_scale_for_all_tensors_is_the_best_that_can_be_drawn(others):
    """Convex: no random step away from it loses less, and the deepest tensor's own scale loses more."""
    random = np.random.default_rng(4)
    values = {t: drawn(6, random.uniform(0.2, 9, 6), t) for t in range(3 + others)}
    statistics, _ = seen(values)
    own = [_Together(((t, np.arange(6)),), (3,) if others and t == 0 else ()) for t in range(3)]
    peaks = np.stack([statistics.peak[t].numpy() for t in range(3)])
    weights = np.stack([statistics.weight[t].numpy() for t in range(3)])

    def lost(r):
        rest = float(statistics.peak[3].max()) if others else 0.0
        free = float(statistics.weight[3].sum()) if others else 0.0
        steps = np.maximum((peaks / r).max(axis=1), [rest, 0, 0])
        return float((steps**2 * ((weights * r**2).sum(axis=1) + np.array([free, 0, 0]))).sum())

    r = _for_all(own, statistics, 6)
    assert others or r.max() == pytest.approx(1.0)
    for _ in range(300):
        assert lost(r * np.exp(random.normal(0, 0.1, 6))) > 0.99 * lost(r)
    assert lost(r) < lost(peaks[2] / peaks[2].max())


def joined_graph():
    """conv -> a, conv -> b, [a, b] -> conv: int8 has one scale for a and b, and channels of b are 40 times larger."""
    rng = np.random.default_rng(0)

    def weight(o, i):
        return rng.normal(size=(o, 1, 1, i)).astype(np.float32)

    data = {10: weight(4, 3), 11: weight(4, 3), 12: weight(5, 8)}
    shapes = {0: (1, 4, 4, 3), 1: (1, 4, 4, 4), 2: (1, 4, 4, 4), 3: (1, 4, 4, 8), 4: (1, 4, 4, 5)}
    tensors = {t: Tensor(t, f"t{t}", s, "FLOAT32") for t, s in shapes.items()}
    tensors |= {t: Tensor(t, f"w{t}", d.shape, "FLOAT32", d) for t, d in data.items()}
    conv = spec("CONV_2D").attrs(padding="VALID")
    nodes = (
        Node("CONV_2D", conv, (0, 10, -1), (1,)), Node("CONV_2D", conv, (0, 11, -1), (2,)),
        Node("CONCATENATION", spec("CONCATENATION").attrs(axis=3), (1, 2), (3,)),
        Node("CONV_2D", conv, (3, 12, -1), (4,)),
    )  # fmt: skip
    graph = Graph(tensors, nodes, (0,), (4,))
    graph.check()
    return graph


def test_a_fold_beside_a_shared_scale_fits_what_it_shares_with():
    """A scale of b's channels gains by what a gets of the shared codes: b's largest channel cannot stay at r = 1."""
    graph = joined_graph()
    values = {1: drawn(4, [1, 1, 1, 1], 1), 2: drawn(4, [40, 1, 1, 1], 2), 4: drawn(5, [1] * 5, 3)}
    statistics, _ = seen(values)
    place = next(p for p in all_folds()["channel_scale"].places(graph) if p.tensors == (2,))
    found = candidates(graph, [("channel_scale", place)], statistics, 1e-9)
    assert len(found) == 1
    assert found[0].r[0] > 5


def test_parts_of_a_stream_are_divided_by_its_channels():
    place = Place("", (0,), 4, parts=((1, (2, -1)),))
    assert place.divided == (0, 1)
    statistics, _ = seen({0: drawn(4, [1] * 4, 1), 1: drawn(2, [1] * 2, 2), 2: drawn(3, [1] * 3, 3)})
    alone = _all_together(place, {}, statistics)
    assert [[t for t, _ in each.scaled] for each in alone] == [[0], [1]]
    tied = _all_together(place, {0: (0, 1, 2), 1: (0, 1, 2)}, statistics)
    assert [([t for t, _ in each.scaled], each.others) for each in tied] == [([0, 1], (2,))]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_a_wider_range_costs_no_more_than_it_may(seed, symmetric):
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(rng.standard_t(3, 5000) + rng.uniform(-1, 1))
    weights = torch.from_numpy(rng.uniform(0, 1, 5000) ** 4)
    histogram = Histogram(None)
    histogram.update(values, weights)
    row, grid = histogram.channels()[0], affine.grid(8, centred=symmetric)
    best = search(row, grid, symmetric=symmetric)
    before = best
    for share in (0.0, 0.01, 0.1, 1.0, 1e6):
        wide = widened(row, best, share * best.error, grid, symmetric=symmetric)
        assert wide.error <= best.error * (1 + share) * (1 + 1e-9)
        assert wide.high - wide.low >= (before.high - before.low) * (1 - 1e-9)
        before = wide
    assert before.low < float(values.min())  # where nothing speaks against it, what no image has shown yet has room
    assert before.high > float(values.max())


@pytest.mark.parametrize("wide", [False, True])
def test_ranges_are_wider_only_where_that_is_asked_for(wide):
    graph = joined_graph()
    problem = Problem(graph, torch.randn(2, 4, 4, 3, generator=torch.Generator().manual_seed(0)))
    start = first_ranges(problem)
    statistics, _ = seen({4: drawn(5, [1, 1, 1, 1, 6], 3)})
    best = search(statistics.histograms[4].channels()[0], affine.grid(8))
    found, total = RangeSearch(8, scheme="asymmetric", wide=wide).all(list(start), statistics, start)
    low, high = ends(next(q for g, q in found.items() if 4 in g.members))
    assert total == pytest.approx(best.error)
    assert (high - low > (best.high - best.low) * 1.01) == wide


@pytest.mark.parametrize("name", ["classify", "raw"])
def test_the_first_ranges_hold_all_images_and_not_only_those_that_are_searched_on(name, monkeypatch):
    """Those that the search does not see are ten times as bright; the state that the first round gets holds them."""
    dim = torch.rand(16, 4, 4, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    where = Problem(joined_graph(), dim, task=task(name))
    unseen = where.unseen(4, len(dim)).images
    is_unseen = (dim[:, None] == unseen[None]).flatten(2).all(dim=2).any(dim=1)
    assert 0 < int(is_unseen.sum()) < len(dim)
    images = torch.where(is_unseen[:, None, None, None], 10 * dim, dim)
    begun = []

    def begin(problem, first, phases):
        begun.append(first)
        return SimpleNamespace(solution=None)

    monkeypatch.setattr("qhyvit.methods.qhyvit.behind", begin)
    problem, found = Problem(joined_graph(), images, task=task(name)), method("qhyvit")
    assert not torch.isin(images[is_unseen], problem.searched(4).images).any()
    found.find(problem, found.parse({"search_images": 4}))
    graph = problem.graph
    values = Executor(graph).run(images, None, [t.id for t in graph.activations()])
    for tensor, x in values.items():
        low, high = ends(begun[0].quants[graph.tensors[tensor].name])
        step = begun[0].quants[graph.tensors[tensor].name].scale[0]
        assert low <= float(x.min()) + step
        assert high >= float(x.max()) - step
        assert float(x.abs().amax(dim=tuple(range(1, x.dim())))[~is_unseen].max()) < 0.5 * float(x.abs().max())


@pytest.mark.parametrize(("name", "count"), [("classify", 2), ("raw", 3)])
def test_a_thorough_task_searches_on_all_images(name, count):
    graph = joined_graph()
    problem = Problem(graph, torch.randn(3, 4, 4, 3, generator=torch.Generator().manual_seed(0)), task=task(name))
    assert len(problem.searched(2).images) == count


@pytest.mark.parametrize("far", [False, True])
def test_a_state_that_is_taken_up_again_knows_whether_the_outputs_were_far(far):
    facts, arrays = State(joined_graph(), {}, far=far).pack()
    assert State.unpack(Piece(facts, arrays)).far is far


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_the_slope_of_what_all_tensors_lose_is_that_of_the_formula(seed):
    """By automatic differentiation of log sum_s (max_c p / r)^2 sum_c w r^2; ties share the slope of a maximum."""
    random = np.random.default_rng(seed)
    logs, weights = random.normal(size=(3, 7)), random.exponential(size=(3, 7))
    x = random.normal(size=6)
    if seed % 2:
        logs[1, 2:4] = x[2:4] + 10.0  # both as large, and larger than the others
    free = torch.tensor(x, requires_grad=True)
    r = torch.cat([free, torch.zeros(1, dtype=torch.float64)])
    steps = (torch.tensor(logs) - r).amax(dim=1)
    loss = (2 * steps + (torch.tensor(weights) * (2 * r).exp()).sum(dim=1).log()).logsumexp(dim=0)
    lost, slope = _lost_by_all(logs, weights, x)
    assert lost == pytest.approx(float(loss))
    np.testing.assert_allclose(slope, torch.autograd.grad(loss, free)[0].numpy(), rtol=1e-9, atol=1e-12)
