"""The input's own grid: pixels become codes without rounding, and nothing moves it."""

import numpy as np
import pytest
import torch

from qhyvit.methods import method
from qhyvit.methods.shared.pixels import pixel_quant
from qhyvit.methods.shared.problem import Problem
from qhyvit.sim.fakequant import fake_quantize
from tests._graphs import Builder

MEANS_AND_DEVIATIONS = [(0.0, 1.0), (0.0, 0.3), (127 / 255, 0.5), (1.0, 0.5)]


def images(mean, std, shape=(4, 4, 4, 3), low=0):
    pixels = np.random.default_rng(0).integers(low, 256, shape)
    return torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32))


@pytest.mark.parametrize(("mean", "std"), MEANS_AND_DEVIATIONS)
@pytest.mark.parametrize("low", [0, 7])
def test_pixels_on_one_grid_are_not_rounded(mean, std, low):
    found = pixel_quant(images(mean, std, (8, 16, 16, 3), low))
    every = torch.arange(low, 256).double()
    every = (every / 255 - mean) / std
    assert float((fake_quantize(every, found) - every).abs().max()) < 1e-4 * found.scale[0] + 1e-6


@pytest.mark.parametrize(("mean", "std", "bits"), [
    (0.5, 0.5, 8),  # 0 lies between two codes
    (np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]), 8),
    (0.0, 1.0, 6),
    (-0.5, 1.0, 8),  # 0 and the values from 0.5 to 1.5 need more than 256 codes
])  # fmt: skip
def test_without_such_a_grid_there_is_none(mean, std, bits):
    assert pixel_quant(images(mean, std), bits) is None


def test_images_of_one_value_have_no_grid():
    assert pixel_quant(torch.ones(2, 4, 4, 3)) is None


def test_neither_the_search_nor_learning_moves_it():
    b = Builder(np.random.default_rng(1))
    hidden = b.conv(b.input, kernel=3, fused_activation_function="RELU")
    mean = b.add("MEAN", hidden, b.integers(1, 2), keep_dims=False)
    graph = b.graph(b.linear(mean, 5))
    problem = Problem(graph, images(0.0, 1.0, (12, 4, 4, 3)))
    chosen = method("qhyvit")
    solution = chosen.search(problem, {**chosen.defaults, "learn": 4, "search_images": 8})
    found = solution.tensors[graph.tensors[b.input].name]
    assert found.scale == (float(np.float32(1 / 255)),)
    assert found.zero_point == (-128,)
