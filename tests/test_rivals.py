"""Rival methods: what TFLite can express is expressible, the rest says so; codes and structures are as published."""

import numpy as np
import pytest
import torch

from qhyvit.errors import PlanError
from qhyvit.lowering.constants import constants_on_grid_of
from qhyvit.lowering.contracts import check_plan
from qhyvit.methods import method
from qhyvit.methods.shared.layers import cosine, hessian, sample
from qhyvit.methods.shared.patterns import norms, pointwise_beside_depthwise, silu_outputs, softmax_outputs
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import finish, minmax_weights, spread
from qhyvit.methods.shared.rest import observed
from qhyvit.plan import Choice, Codes, QuantPlan, Scheme, TensorQuant
from qhyvit.sim.fakequant import FakeQuant, fake_quantize
from qhyvit.sim.partial import counted, partial
from qhyvit.sim.run import Executor
from tests._graphs import random_graph

EXPRESSIBLE = {
    "percentile": {}, "easyquant": {"rounds": 1, "scheme": "symmetric"}, "ptq4vit": {"rounds": 1, "twin": False},
    "fqvit": {"expressible": True}, "repqvit": {"expressible": True}, "hyq": {"expressible": True},
}  # fmt: skip
SIMULATED = {"ptq4vit": {"rounds": 1}, "fqvit": {}, "repqvit": {}, "hyq": {"steps": 20}}


@pytest.fixture(scope="module")
def problem(small_v1, inputs):
    return Problem(small_v1.graph, inputs[:2])


@pytest.fixture(scope="module", params=["blocks", pytest.param("network", marks=pytest.mark.slow)])
def searched(request):
    """What a method is run on: a whole network takes it most of a minute."""
    if request.param == "network":
        return request.getfixturevalue("problem")
    graph = random_graph(["affine norm", "silu of layer", "softmax attention", "residual norm", "depthwise"], 1)
    return Problem(graph, torch.rand(2, 4, 4, 3, generator=torch.Generator().manual_seed(0)))


def search(problem, name, options):
    chosen = method(name)
    return chosen.search(problem, {**chosen.defaults, **options})


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_what_tflite_can_express_passes_the_plans_check(searched, name):
    solution = search(searched, name, EXPRESSIBLE[name])
    check_plan(solution.graph, QuantPlan(solution.tensors, name))


@pytest.mark.parametrize("name", SIMULATED)
def test_what_it_cannot_runs_in_simulation_and_is_refused_for_a_file(searched, name):
    solution = search(searched, name, SIMULATED[name])
    quants = solution.tensors
    with torch.no_grad():
        logits = Executor(constants_on_grid_of(solution.shipped, quants)).rows(searched.images, FakeQuant(quants))
    assert torch.isfinite(logits).all()
    with pytest.raises(PlanError):
        check_plan(solution.graph, QuantPlan(quants, name))


def test_channel_wise_norm_outputs_may_reach_a_linear_through_a_copy(small_v2, inputs):
    """A copy of such a tensor has no grid of its own; MobileViTv2's query reads one."""
    problem = Problem(small_v2.graph, inputs[:2])
    quants = search(problem, "repqvit", {}).tensors
    copies = {
        graph.tensors[n.inputs[0]].name for graph in (small_v2.graph,) for n in graph.nodes
        if n.op == "FULLY_CONNECTED" and graph.tensors[n.inputs[0]].name not in quants
    }  # fmt: skip
    assert copies
    with torch.no_grad():
        logits = Executor(constants_on_grid_of(small_v2.graph, quants)).rows(problem.images, FakeQuant(quants))
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("codes", "base"), [(Codes.LOG2, 2.0), (Codes.LOG_SQRT2, 2.0**0.5)])
def test_log_codes_are_the_nearest_powers(codes, base):
    quant = TensorQuant((1.0,), (0,), bits=4, codes=codes)
    x = torch.rand(500, dtype=torch.float64) ** 4
    powers = torch.tensor([base**-k for k in range(16)], dtype=torch.float64)
    distance = (torch.log(x)[:, None] - torch.log(powers)[None]).abs()
    expected = torch.where(x < powers[-1] * base**-0.5, torch.zeros_like(x), powers[distance.argmin(dim=1)])
    assert torch.allclose(fake_quantize(x, quant), expected, atol=1e-9)


def test_twin_codes_of_a_signed_tensor_split_at_zero():
    choice = Choice(scheme=Scheme.SYMMETRIC)
    quant = TensorQuant((0.01,), (0,), bits=8, codes=Codes.TWIN, second=0.5, choice=choice)
    x = torch.tensor([-0.234, -5.0, 0.3, 7.4, 1e3])
    assert fake_quantize(x, quant).tolist() == pytest.approx([-0.23, -1.28, 0.5, 7.5, 63.5])


def test_twin_codes_of_a_softmax_are_fine_below_the_split():
    quant = TensorQuant((0.001,), (0,), bits=8, codes=Codes.TWIN, second=0.1, choice=Choice())
    x = torch.tensor([0.0124, 0.1269, 0.3333])
    assert fake_quantize(x, quant).tolist() == pytest.approx([0.012, 0.127, 0.3], abs=1e-6)


def test_structures_are_found_where_the_ops_say(small):
    graph = small.graph
    ops = [n.op for n in graph.nodes]
    assert len(norms(graph)) == ops.count("RSQRT")
    assert len(silu_outputs(graph)) == ops.count("LOGISTIC")
    assert len(softmax_outputs(graph)) == ops.count("SOFTMAX")
    names = [graph.tensors[n.inputs[1]].name for n in pointwise_beside_depthwise(graph)]
    inside = [n for n in names if "conv1_1x1" in n or "conv3_1x1" in n]
    assert len(inside) >= 2
    assert not [n for n in names if "transformer" in n]


def test_metrics_are_best_for_equal_outputs():
    y = torch.randn(1, 50, 3)
    g = torch.randn(1, 50, 3)
    for metric in (cosine, hessian):
        assert (metric(y, y, g) >= metric(y, y + 0.1 * torch.randn_like(y), g)).all()


def test_sampled_layers_give_their_own_outputs(problem):
    quants = finish(problem.graph, {**spread(problem.graph, observed(problem, "minmax")["minmax"]),
                                    **minmax_weights(problem.graph)})  # fmt: skip
    for layer in sample(problem, quants):
        assert torch.allclose(layer.output(layer.x, layer.w), layer.y, atol=2e-3 * float(layer.y.abs().max()))
        assert layer.g is not None


def test_partial_counts_layers_and_matmuls_only(problem):
    graph = problem.graph
    quants = finish(graph, {**spread(graph, observed(problem, "minmax")["minmax"]), **minmax_weights(graph)})
    changed, kept = partial(graph, quants)
    changed.check()
    layers = [n for n in graph.nodes if counted(graph, n)]
    assert {n.op for n in layers} <= {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"}
    reads = [name for name in kept if ".read" in name]
    assert len(kept) == len(reads) + len(minmax_weights(graph))
    with torch.no_grad():
        plain, same = Executor(graph).rows(problem.images), Executor(changed).rows(problem.images)
        assert torch.allclose(plain, same, atol=1e-5 * float(plain.abs().max()))
    outside = {"LOGISTIC", "RSQRT", "SOFTMAX", "ADD", "MEAN"}
    assert not {graph.tensors[n.outputs[0]].name for n in graph.nodes if n.op in outside} & set(kept)


def test_partial_reads_of_channel_wise_values_keep_their_channels(small_v2, inputs):
    """The last norm's output is read behind a reshape that drops a dimension, keys and values behind a transpose."""
    problem = Problem(small_v2.graph, inputs[:2])
    solution = search(problem, "repqvit", {})
    changed, kept = partial(solution.shipped, solution.tensors)
    copies = [n for n in changed.nodes if n.op == "RESHAPE" and kept.get(changed.tensors[n.outputs[0]].name)]
    wise = [n for n in copies if kept[changed.tensors[n.outputs[0]].name].axis is not None]
    assert wise
    with torch.no_grad():
        sources = [n.inputs[0] for n in wise]
        values = Executor(changed).run(problem.images, None, sources)
    for node in wise:
        quant, x = kept[changed.tensors[node.outputs[0]].name], values[node.inputs[0]]
        channels = x.movedim(quant.axis + 1, -1)
        assert channels.shape[-1] == len(quant.scale)
        step = torch.tensor(quant.scale)
        low = (-128 - torch.tensor(quant.zero_point) - 0.5) * step
        inside = (channels >= low) & (channels <= low + 256 * step)
        assert inside.float().mean() > 0.999  # min-max of each channel: another channel's range would not do
        error = (fake_quantize(x, quant) - x).abs().movedim(quant.axis + 1, -1)
        assert (error[inside] <= 0.5001 * step.expand_as(error)[inside] + 1e-6).all()


def test_norm_sums_of_squares_are_no_matmuls(small):
    sums = [
        n for n in small.graph.nodes if n.op == "BATCH_MATMUL" and np.prod(small.graph.tensors[n.outputs[0]].shape) == 1
    ]
    assert all(not counted(small.graph, n) for n in sums)
