"""Closed-form reconstruction: ridge against the normal equations, careful rounding against plain rounding."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.methods.shared.hessian import position_weights
from qhyvit.methods.shared.observe import observe
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import finish, group_quant, groups, minmax_weights, spread
from qhyvit.methods.shared.reconstruct import ClosedForm, Gram, _gram, reconstruct, ridge, round_with_care
from qhyvit.ops.shared.layer import layers
from qhyvit.sim.fakequant import FakeQuant
from qhyvit.sim.run import Executor
from tests._graphs import Builder


def gram_of(x, r):
    return Gram((x.T @ x)[None], (r.T @ x)[None], x.sum(0)[None], r.sum(0)[None], len(x), len(x))


def correlated(samples, k, seed):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(samples, k, generator=generator, dtype=torch.float64)
    return base @ torch.randn(k, k, generator=generator, dtype=torch.float64) + 3.0


def test_ridge_without_pull_is_least_squares_with_an_intercept():
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
    w = torch.zeros(1, 2, 6, dtype=torch.float64)
    truth = torch.randn(2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = ridge(w, gram_of(x, x @ truth.T + 5.0), 0.0)
    assert torch.allclose(found[0], truth, atol=1e-3)


def test_ridge_with_a_strong_pull_keeps_the_weights():
    x = correlated(400, 6, 0)
    w = torch.ones(1, 2, 6, dtype=torch.float64)
    assert torch.allclose(ridge(w, gram_of(x, torch.randn(400, 2, dtype=torch.float64)), 1e9), w, atol=1e-6)


def rounding_errors(seed):
    """(careful, plain, best of all roundings) error of one random row in a correlated covariance."""
    x = correlated(2000, 4, seed)
    gram = gram_of(x, x[:, :1])
    cov = gram.centred()[0][0]
    w = torch.randn(1, 1, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = torch.full((1, 1, 1), 0.5, dtype=torch.float64)

    def error(v):
        d = (v - w)[0, 0]
        return float(d @ cov @ d)

    careful = round_with_care(w, scale, gram, 127)
    assert torch.equal(torch.round(careful / scale) * scale, careful)
    floors = torch.floor(w / scale)
    every = [error((floors + torch.tensor(bits).reshape(1, 1, 4)) * scale) for bits in product((0.0, 1.0), repeat=4)]
    return error(careful), error(torch.round(w / scale) * scale), min(every)


def test_careful_rounding_beats_plain_rounding_and_comes_near_the_best():
    careful, plain, best = np.array([rounding_errors(seed) for seed in range(40)]).sum(axis=0)
    assert careful < 0.7 * plain
    assert careful < 3 * best


def test_reconstruction_brings_the_outputs_means_back_and_stays_on_the_grid(small, inputs):
    problem = Problem(small.graph, inputs)
    graph = problem.graph
    chosen = {g: group_quant(g, *ends, "minmax") for g, ends in observe(problem, groups(graph), "minmax").items()}
    quants = finish(graph, {**spread(graph, chosen), **minmax_weights(graph)})
    constants, found = reconstruct(problem, quants, ClosedForm())

    def logits(g, q):
        return Executor(constants_on_grid_of(g, q)).rows(inputs, FakeQuant(q))

    from qhyvit.graph import edit

    shipped = edit.with_named(graph, constants)
    on_grid = constants_on_grid_of(shipped, found)
    for name, data in constants.items():
        if name in found:
            assert np.allclose(on_grid.by_name[name].data, data, atol=1e-6 * np.abs(data).max())
    with torch.no_grad():
        target = Executor(graph).rows(inputs)
        before, after = logits(graph, quants), logits(shipped, found)
    assert float(((after - target) ** 2).mean()) < float(((before - target) ** 2).mean())


def test_reconstruction_is_the_same_however_many_images_run_at_once(small, inputs):
    whole = Problem(small.graph, inputs, batch=len(inputs))
    ranges = observe(whole, groups(small.graph), "minmax")
    chosen = {g: group_quant(g, *ends, "minmax") for g, ends in ranges.items()}
    quants = finish(small.graph, {**spread(small.graph, chosen), **minmax_weights(small.graph)})
    positions = position_weights(whole, quants, [layer.out for layer in layers(small.graph)])
    # codes as near as can be: what careful rounding makes of a last bit is no matter of images
    plain = ClosedForm(rounding=False, scales=False)
    wanted, _ = reconstruct(whole, quants, plain, positions=positions)
    assert len(inputs) % 5  # the last batch is smaller
    for batch in (1, 5):
        found, _ = reconstruct(replace(whole, batch=batch), quants, plain, positions=positions)
        first = layers(small.graph)[0]  # behind it the last bit of a sum moves a code here and there
        for name in (small.graph.tensors[t].name for t in (first.weight, first.bias)):
            assert np.allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_sample_of_weight_two_counts_as_two_samples(kernel):
    b = Builder(np.random.default_rng(0))
    layer = layers(b.graph(b.conv(b.input, kernel=kernel)))[0]
    random = torch.Generator().manual_seed(1)
    x = torch.randn((3, 1, 4, 4, 3), generator=random)
    r = torch.randn((3, *layer.out_shape), generator=random)
    counts = torch.randint(0, 3, (3, r[0].numel() // layer.out_shape[-1]), generator=random)
    found = _gram(layer, x, r, counts.float())
    rows = torch.cat([layer.patches(image[None])[0] for image in x]).repeat_interleave(counts.flatten(), 0).double()
    out = torch.cat([layer.outputs(part)[0] for part in r]).repeat_interleave(counts.flatten(), 0).double()
    torch.testing.assert_close(found.xx[0], rows.T @ rows, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.rx[0], out.T @ rows, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.x[0], rows.sum(0), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.r[0], out.sum(0), rtol=1e-5, atol=1e-4)


def test_half_of_the_samples_say_as_much_as_half_of_them():
    b = Builder(np.random.default_rng(0))
    layer = layers(b.graph(b.conv(b.input)))[0]
    x, r = torch.randn(2, 1, 4, 4, 3), torch.randn(2, *layer.out_shape)
    assert _gram(layer, x, r, None).effective == pytest.approx(32)
    assert _gram(layer, x, r, torch.tensor([0.0, 2.0]).repeat(2, 8)).effective == pytest.approx(16)


def test_positions_count_as_far_as_the_outputs_read_them():
    """The outputs are 3 times the first token, once the second, and nothing of the others."""
    b = Builder(np.random.default_rng(0))
    tokens = b.linear(b.tokens(b.input), 5)
    first, second = (b.reshape(b.add("SLICE", tokens, b.integers(0, i, 0), b.integers(1, 1, 5)), 1, 5) for i in (0, 1))
    three = b.tensor("constant", (1,), data=np.array([3.0], np.float32))
    graph = b.graph(b.add("ADD", b.add("MUL", first, three), second))
    random = torch.Generator().manual_seed(0)
    problem = Problem(graph, torch.randn((6, 4, 4, 3), generator=random), torch.randn((6, 5), generator=random))
    layer = layers(graph)[0]
    found = position_weights(problem, minmax_weights(graph), [layer.out])[layer.out]
    assert found.shape == (6, 16)
    assert float(found.mean()) == pytest.approx(1.0)
    assert float(found[:, 2:].abs().max()) == 0.0
    torch.testing.assert_close(found[:, 0], 3.0 * found[:, 1])
