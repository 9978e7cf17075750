"""int16 softmax: chosen by the objective within its budget, written, and computed by the file as simulated."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency import default_profile
from qhyvit.lowering.contracts import groups
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.lowering.profiles import ids_of, long_softmaxes, wide_cost_ms, widened
from qhyvit.methods import method
from qhyvit.methods.shared import int16_outputs
from qhyvit.methods.shared.hessian import gather
from qhyvit.methods.shared.problem import Problem
from qhyvit.observers.shared.histogram import Histogram
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan
from qhyvit.sim.run import Executor
from qhyvit.tflite import flatbuffer
from qhyvit.verify.census import census
from qhyvit.verify.report import verify
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.preprocess import quantize as codes_of

DEFAULT = default_profile()


@pytest.fixture(scope="module")
def softmaxes(small_v1):
    graph = small_v1.graph
    return [graph.tensors[n.outputs[0]].name for n in graph.nodes if n.op == "SOFTMAX"]


def test_a_wide_softmax_has_a_scale_of_its_own(small_v1, softmaxes):
    graph = widened(small_v1.graph, ids_of(small_v1.graph, softmaxes[:1]))
    fixed = [g.fixed for g in groups(graph) for t in g.members if graph.tensors[t].name in softmaxes[:2]]
    assert fixed == [None, (1 / 256, -128)]


def test_the_file_holds_int16_only_there_and_agrees_with_the_simulation(small_v1, softmaxes, pictures, inputs):
    graph = widened(small_v1.graph, ids_of(small_v1.graph, softmaxes))
    solution = method("minmax").search(Problem(graph, inputs[:8]), {"observer": "minmax"})
    plan = QuantPlan(solution.tensors, "minmax", wide=tuple(softmaxes))
    data = quantized_file(graph, plan)
    found = census(data)
    assert found.float_tensors == ()
    assert set(softmaxes) <= set(found.int16_tensors)
    how = Preprocess("squash", 128, "bicubic", (0.0,) * 3, (1.0,) * 3)
    entry = plan.tensors[graph.tensors[graph.inputs[0]].name]
    codes = [codes_of(p, how, entry.scale[0], entry.zero_point[0], "int8")[None] for p in pictures[:4]]
    report = verify(graph, lower(graph, plan), data, inputs[:4], codes)
    assert report.passed, [c for c in report.checks if not c.passed]
    # the codes behind int16 have the plan's scale, not the one that the converter derives from the kernel's
    model = flatbuffer.load_model(data)
    narrow = {flatbuffer.text(t.name): t.quantization for t in model.subgraphs[0].tensors}
    for name in softmaxes:
        assert float(narrow[f"{name}:int8"].scale[0]) == plan.tensors[name].scale[0]
        assert int(narrow[f"{name}:int8"].zeroPoint[0]) == plan.tensors[name].zero_point[0]
    softmax = report.agreements["litert"].ops["SOFTMAX int16"]
    assert softmax.compared > 0
    assert softmax.worst == 0
    assert QuantPlan.from_json(plan.to_json()).wide == plan.wide


def test_the_codes_behind_int16_have_a_finer_step(small_v1, softmaxes, inputs):
    steps = []
    for graph in (small_v1.graph, widened(small_v1.graph, ids_of(small_v1.graph, softmaxes))):
        solution = method("minmax").search(Problem(graph, inputs[:8]), {"fast_softmax": False})
        steps.append(solution.tensors[softmaxes[0]].scale[0])
    assert steps[1] < steps[0] == 1 / 256


def test_the_budget_is_kept_and_the_best_for_its_time_comes_first(small_v1, inputs):
    graph = small_v1.graph
    problem = Problem(graph, inputs[:4])
    quants = method("minmax").search(problem, {"observer": "minmax"}).tensors
    tensors = int16_outputs.candidates(graph, DEFAULT)
    statistics = gather(problem, quants, tensors, (), "test")
    everything = int16_outputs.choose(graph, statistics, 0.0, 1e9, DEFAULT)
    assert everything
    cost = {t: wide_cost_ms(graph, t, DEFAULT) for t in tensors}
    budget = 1.01 * min(cost[t] for t in everything)
    few = int16_outputs.choose(graph, statistics, 0.0, budget, DEFAULT)
    assert few
    assert sum(cost[t] for t in few) <= budget
    assert int16_outputs.choose(graph, statistics, 0.0, 0.0, DEFAULT) == {}
    assert int16_outputs.choose(graph, statistics, 1e12, 1e9, DEFAULT) == {}


def test_ranges_behind_int16_hold_what_was_seen(small_v1):
    graph = small_v1.graph
    t = int16_outputs.candidates(graph, DEFAULT)[0]

    histogram = Histogram(None)
    histogram.update(torch.linspace(0, 0.05, 1000), torch.ones(1000))
    seen = SimpleNamespace(peak={t: None}, histograms={t: histogram})
    (low, high) = int16_outputs.choose(graph, seen, 0.0, 1e9, DEFAULT)[t]
    assert low == 0.0
    assert np.isclose(high, 0.05, rtol=0.1)


def test_the_method_finds_and_keeps_them(small_v1, inputs, monkeypatch):
    monkeypatch.setattr(int16_outputs, "LEAST_GAIN", 0.0)
    chosen = method("qhyvit")
    options = {**chosen.defaults, "rounds": 2, "learn": 0, "ridge": 0.0, "rounding": False, "bias": False}
    said = []
    solution = chosen.search(Problem(small_v1.graph, inputs[:8], log=said.append), options)
    names = [line.removeprefix("int16 kernel for ") for line in said if line.startswith("int16")]
    assert {solution.graph.tensors[t].name for t in solution.graph.widened} == set(names)
    assert names
    assert min(solution.tensors[name].scale[0] for name in names) < 1 / 256


def softmax_of(positions):
    """x [1, positions] -> SOFTMAX."""
    tensors = {i: Tensor(i, name, (1, positions), "FLOAT32") for i, name in enumerate(("x", "attention"))}
    return Graph(tensors, (Node("SOFTMAX", spec("SOFTMAX").attrs(), (0,), (1,)),), (0,), (1,))


@pytest.mark.parametrize(("positions", "wide"), [(511, []), (512, [1])])
def test_a_softmax_is_long_where_equal_weights_round_to_nothing(positions, wide):
    graph = softmax_of(positions)
    weight = Executor(graph).run(torch.zeros(1, positions))[1] * 256
    assert bool(torch.round(weight).any()) == (not wide)
    assert long_softmaxes(graph) == wide
