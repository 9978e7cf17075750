"""Observers against numpy, and the range search against brute force on the values themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit import affine
from qhyvit.lowering.contracts import groups
from qhyvit.methods.shared.observe import observe, observe_all
from qhyvit.methods.shared.problem import Problem
from qhyvit.observers import all_observers, observer
from qhyvit.observers.shared.histogram import Histogram, PooledRows
from qhyvit.observers.shared.search import search
from tests._graphs import random_graph

RNG = np.random.default_rng(0)
BATCHES = [torch.from_numpy(RNG.standard_t(3, (4, 9, 6)).astype(np.float32) * (i + 1)) for i in range(3)]
ALL = torch.cat(BATCHES).numpy()


def fed(name, axis=None):
    state = observer(name).new(axis)
    for batch in BATCHES:
        state.update(batch)
    return state.range()


def test_minmax_by_layer_and_channel():
    low, high = fed("minmax")
    assert (low, high) == (ALL.min(), ALL.max())
    low, high = fed("minmax", 2)
    assert np.array_equal(low, ALL.min(axis=(0, 1)))
    assert np.array_equal(high, ALL.max(axis=(0, 1)))


def test_moving_average_is_the_recurrence_over_images():
    expected = ALL[0].max()
    for image in ALL[1:]:
        expected = 0.95 * expected + 0.05 * image.max()
    assert fed("moving_average")[1] == pytest.approx(expected, rel=1e-5)


def test_percentile_is_numpys_up_to_a_bin():
    state = observer("percentile").new(None)
    values = torch.from_numpy(np.random.default_rng(1).normal(size=200_000).astype(np.float32))
    for part in values.split(50_000):
        state.update(part)
    low, high = state.range()
    assert low == pytest.approx(np.quantile(values.numpy(), 5e-5), abs=0.05)
    assert high == pytest.approx(np.quantile(values.numpy(), 1 - 5e-5), abs=0.05)


@pytest.mark.parametrize("names", [sorted(all_observers()), sorted(all_observers(), reverse=True)])
def test_observers_find_together_what_each_finds_alone(names):
    """One histogram serves all of them, whichever comes first: percentiles read less of it than others do."""
    graph = random_graph(["conv", "silu of layer"], seed=2)
    problem = Problem(graph, torch.randn(6, 4, 4, 3, generator=torch.Generator().manual_seed(0)))
    together = observe_all(problem, groups(graph), names)
    assert together == {name: observe(problem, groups(graph), name) for name in names}
    assert len({tuple(found.values()) for found in together.values()}) > 1


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6))
def test_a_histogram_that_grew_still_holds_all_moments(widths):
    histogram, values = Histogram(None, 64), []
    for i, width in enumerate(widths):
        x = torch.from_numpy(np.random.default_rng(i).normal(scale=width, size=50))
        histogram.update(x)
        values.append(x.numpy())
    row, x = histogram.channels()[0], np.concatenate(values)
    assert row.count.sum() == len(x)
    assert row.s1.sum() == pytest.approx(x.sum(), abs=1e-6 * np.abs(x).sum())
    assert row.s2.sum() == pytest.approx((x * x).sum(), rel=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_search_is_as_good_as_brute_force(symmetric):
    x = np.concatenate([np.random.default_rng(2).normal(size=4000), [9.0, -3.0]])
    weight = np.random.default_rng(3).random(len(x))
    histogram = Histogram(None)
    histogram.update(torch.from_numpy(x), torch.from_numpy(weight))
    found = search(histogram.channels()[0], affine.grid(), symmetric=symmetric)

    def error(low, high):
        p = affine.fit(low, high, affine.grid(), symmetric=symmetric)
        back = affine.dequantize(affine.quantize(x, p.scale, p.zero_point, affine.grid()), p.scale, p.zero_point)
        return (weight * (x - back) ** 2).sum()

    tries = [(-a, a) for a in np.linspace(0.5, 9, 80)] if symmetric else [
        (-a, b) for a in np.linspace(0.5, 4, 30) for b in np.linspace(0.5, 9, 60)]  # fmt: skip
    assert error(found.low, found.high) <= 1.05 * min(error(*t) for t in tries)
    assert found.error == pytest.approx(error(found.low, found.high), rel=0.05)


def test_merged_rows_give_the_error_in_the_values_own_units():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3000, 2)) * [1.0, 30.0]
    histogram = Histogram(1)
    histogram.update(torch.from_numpy(x))
    r = np.array([1.0, 30.0])
    found = search(PooledRows(histogram.channels()).merged(r), affine.grid())
    p = affine.fit(found.low, found.high, affine.grid(), symmetric=False)
    back = affine.dequantize(affine.quantize(x / r, p.scale, p.zero_point, affine.grid()), p.scale, p.zero_point) * r
    assert found.error == pytest.approx(((x - back) ** 2).sum(), rel=0.05)


@pytest.mark.parametrize("name", all_observers())
def test_every_observer_answers_and_refuses_to_guess(name):
    low, high = fed(name)
    assert low < high
    by_channel = fed(name, 2)
    assert [ends.shape for ends in by_channel] == [(6,), (6,)]
    assert (by_channel[0] < by_channel[1]).all()
    with pytest.raises(ValueError, match="observed"):
        observer(name).new(None).range()
