"""Closed-form reconstruction: ridge against the normal equations, careful rounding against plain rounding."""

from itertools import product

import numpy as np
import torch

from qhyvit.methods._observe import observe
from qhyvit.methods._problem import Problem
from qhyvit.methods._ranges import finish, group_quant, groups, minmax_weights, spread
from qhyvit.methods._reconstruct import Gram, reconstruct, ridge, round_with_care
from qhyvit.sim.fakequant import FakeQuant
from qhyvit.sim.run import Executor
from qhyvit.tflite.write import constants_on_grid_of


def gram_of(x, r):
    return Gram((x.T @ x)[None], (r.T @ x)[None], x.sum(0)[None], r.sum(0)[None], len(x))


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
    constants, found = reconstruct(problem, quants, {"ridge": 1.0, "rounding": True, "bias": True})

    def logits(g, q):
        return Executor(constants_on_grid_of(g, q)).logits(inputs, FakeQuant(q))

    from qhyvit.graph import edit

    shipped = edit.with_named(graph, constants)
    on_grid = constants_on_grid_of(shipped, found)
    for name, data in constants.items():
        if name in found:
            assert np.allclose(on_grid.by_name[name].data, data, atol=1e-6 * np.abs(data).max())
    with torch.no_grad():
        target = Executor(graph).logits(inputs)
        before, after = logits(graph, quants), logits(shipped, found)
    assert float(((after - target) ** 2).mean()) < float(((before - target) ** 2).mean())
