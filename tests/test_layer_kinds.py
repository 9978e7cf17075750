"""Every kind of layer in every method: a plan comes out, and the file computes what the plan says, op by op."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qhyvit.errors import PlanError
from qhyvit.folds import all_folds
from qhyvit.folds.shared.scaling import scale_tensor
from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.lowering.contracts import check_plan
from qhyvit.lowering.lower import lower
from qhyvit.methods import all_methods
from qhyvit.methods.shared.folding import _readers_weight_error
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops.shared.layer import layers
from qhyvit.passes import prepared
from qhyvit.plan import QuantPlan
from qhyvit.sim.fakequant import FakeQuant
from qhyvit.sim.run import Executor
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.agree import op_by_op
from qhyvit.verify.decide import HERE
from tests._codes import input_codes
from tests._layer_graphs import LAYERS, Maker, graph_of

IMAGES = torch.rand(4, 8, 8, 3, generator=torch.Generator().manual_seed(0))
SMALL = {"rounds": 1, "learn": 1, "steps": 2, "search_images": 3}
KINDS = pytest.mark.parametrize("kind", sorted(LAYERS))


def solved(kind: str, name: str):
    chosen = all_methods()[name]
    options = {**chosen.defaults, **{k: v for k, v in SMALL.items() if k in chosen.defaults}}
    return chosen.search(Problem(prepared(graph_of(kind)), IMAGES), options)


@KINDS
@pytest.mark.parametrize("name", sorted(all_methods()))
def test_every_kind_of_layer_goes_through_every_method(kind: str, name: str) -> None:
    solution = solved(kind, name)
    plan = QuantPlan(solution.tensors, name, folds=solution.folds)
    try:
        check_plan(solution.shipped, plan)
    except PlanError:  # what TFLite cannot say runs in simulation
        hook = FakeQuant(solution.tensors)
        with torch.no_grad():
            logits = Executor(constants_on_grid_of(solution.shipped, solution.tensors)).rows(IMAGES, hook)
        assert name != "qhyvit"
        assert torch.isfinite(logits).all()
        return
    lowered = lower(solution.shipped, plan)
    codes = input_codes(solution, IMAGES, "0.image")
    found = op_by_op(solution.graph, lowered, serialize(lowered.graph), IMAGES, codes, HERE)
    assert not found.missing
    assert set(found.ops) == {n.op for n in solution.graph.nodes}
    for row in found.ops.values():
        assert row.worst == 0, row


@KINDS
def test_the_default_method_keeps_what_the_network_computes(kind: str) -> None:
    solution = solved(kind, "qhyvit")
    with torch.no_grad():
        expected = Executor(prepared(graph_of(kind))).rows(IMAGES)
        hook = FakeQuant(solution.tensors)
        found = Executor(constants_on_grid_of(solution.shipped, solution.tensors)).rows(IMAGES, hook)
    assert (found - expected).abs().max() < 0.06 * (expected.max() - expected.min())


@KINDS
def test_a_channel_scale_in_front_of_any_layer_leaves_the_function_as_it_was(kind: str) -> None:
    """Scales are powers of two, so that float32 constants hold the products exactly."""
    graph, rng = graph_of(kind), np.random.default_rng(0)
    places = all_folds()["channel_scale"].places(graph)
    assert len(places) == len(layers(graph)) - 1, "all but the logits"
    expected = Executor(graph, torch.float64).rows(IMAGES)
    for place in places:
        r = 2.0 ** rng.integers(-3, 4, place.channels)
        folded = scale_tensor(graph, place.tensors[0], r)
        found = Executor(folded, torch.float64).run(IMAGES, None, place.tensors)
        assert torch.allclose(found[graph.outputs[0]].flatten(1), expected, rtol=1e-12, atol=1e-12)
        before = Executor(graph, torch.float64).run(IMAGES, None, place.tensors)[place.tensors[0]]
        assert torch.allclose(found[place.tensors[0]] * torch.from_numpy(r), before, rtol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_error_of_readers_weights_counts_the_channels_that_each_group_reads(groups: int) -> None:
    maker, rng = Maker(groups), np.random.default_rng(groups)
    x = maker.conv(maker.image, 8, 3)
    y = maker.conv(x, 12, 3, groups=groups)
    graph, weight = maker.logits(y), maker.tensors[maker.nodes[1].inputs[1]].data
    energy, gradient, r = rng.random(8), rng.random(12), np.exp(rng.normal(size=8))
    statistics = SimpleNamespace(energy={x: torch.from_numpy(energy)}, weight={y: torch.from_numpy(gradient)})
    expected, size = 0.0, 8 // groups
    for o in range(12):
        first = o // (12 // groups) * size
        read = slice(first, first + size)
        step = max(np.abs(weight[o] * r[read]).max(axis=(0, 1))) / 127
        expected += gradient[o] * step**2 / 12 * 9 * (energy[read] / r[read] ** 2).sum()
    assert _readers_weight_error(graph, x, r, statistics, 8) == pytest.approx(expected)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_readers_with_one_channel_an_output_lose_nothing_by_a_scale(multiplier: int) -> None:
    maker = Maker()
    x = maker.conv(maker.image, 8, 3)
    y = maker.depthwise(x, m=multiplier)
    graph = maker.logits(y)
    ones = SimpleNamespace(energy={x: torch.ones(8)}, weight={y: torch.ones(8 * multiplier)})
    assert _readers_weight_error(graph, x, np.arange(1.0, 9.0), ones, 8) == 0
