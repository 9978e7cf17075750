"""Files with islands of float kernels: built by a profile of times, and right."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit import affine, api, stages
from qhyvit.config import DataConfig, MethodConfig, TargetConfig
from qhyvit.errors import InputError, PlanError, UsageError
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency import KernelTime, default_profile
from qhyvit.latency.work import LANES, TABLE, is_sum_of_squares
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.lowering.profiles import ids_of, placed, with_islands
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.range_search import ranges_behind
from qhyvit.ops import spec
from qhyvit.passes import float_sums_of_squares, prepared
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.run import Executor
from qhyvit.tflite.read import read
from qhyvit.verify.census import census
from qhyvit.verify.report import verify
from qhyvit.work import FACTS, FLOAT, LATENCY, Work
from tests._islands import ELEMENTS, line, made_up
from tests._targets import BY_PROFILE, CPU


def test_a_quotient_is_float_in_cpu_and_refused_in_integer():
    tensors = {i: Tensor(i, f"t{i}", (1, 4, 8), "FLOAT32") for i in range(3)}
    half = Tensor(9, "half", (), "FLOAT32", np.array(0.5, np.float32))
    nodes = Node("ADD", spec("ADD").attrs(), (0, 9), (1,)), Node("DIV", spec("DIV").attrs(), (0, 1), (2,))
    last = Node("MUL", spec("MUL").attrs(), (2, 9), (3,))
    out = Tensor(3, "t3", (1, 4, 8), "FLOAT32")
    graph = Graph({**tensors, 3: out, 9: half}, (*nodes, last), (0,), (3,))
    images = torch.rand(4, 4, 8, generator=torch.Generator().manual_seed(0))
    for profile in ("cpu", "integer"):
        made = placed(graph, BY_PROFILE[profile])
        assert ("DIV" in {made.producer(t).op for t in made.islands}) == (profile == "cpu")
        solution = method("minmax").search(Problem(made, images, target=BY_PROFILE[profile]), {"observer": "minmax"})
        plan = QuantPlan(solution.tensors, "minmax", profile=profile)
        if profile == "cpu":
            assert ("DIV", "FLOAT32") in census(quantized_file(solution.shipped, plan)).ops
        else:
            with pytest.raises(PlanError, match=r"DIV 't2' has no int8 kernel that is right: .*--no-integer"):
                quantized_file(solution.shipped, plan)


def scaled(factor, *names):
    """The default with some kernels slower or faster, by the beginnings of their names."""
    default = default_profile()

    def one(name, k):
        times_ = factor if name.startswith(names) else 1
        return replace(k, fixed_us=k.fixed_us * times_, ns_per_element=k.ns_per_element * times_)

    return replace(default, kernels={n: one(n, k) for n, k in default.kernels.items()})


def built(graph, inputs):
    solution = method("minmax").search(Problem(graph, inputs[:4]), {"observer": "minmax"})
    graph, plan = solution.graph, QuantPlan(solution.tensors, "minmax", profile="cpu")
    data = quantized_file(graph, plan)
    entry = plan.tensors[graph.tensors[graph.inputs[0]].name]
    codes = [
        affine.quantize(x[None].numpy(), entry.scale[0], entry.zero_point[0], affine.grid()).astype(np.int8)
        for x in inputs[:2]
    ]
    report = verify(graph, lower(graph, plan), data, inputs[:2], codes)
    assert not {c.name: c.detail for c in report.checks if "decide" not in c.name and not c.passed}
    return census(data)


def test_the_default_leaves_softmax_and_roots_in_float(small, enlarged):
    graph = placed(small.graph, replace(CPU, times=enlarged))
    int8 = [n for n in graph.nodes if n.op in ("SOFTMAX", "RSQRT") and n.is_int8]
    # rows that do not fill a vector take as long in XNNPACK's softmax as dozens of elements in its int8 rival
    assert {n.op for n in int8} <= {"SOFTMAX"}
    assert all(graph.tensors[n.outputs[0]].shape[-1] < LANES for n in int8)
    assert any(n.op == "SOFTMAX" and not n.is_int8 for n in graph.nodes)


def test_where_everything_float_is_slow_there_are_no_islands(small_v1):
    default = default_profile()
    slow = {n: replace(k, fixed_us=1e6) if "float32" in n or n == TABLE else k for n, k in default.kernels.items()}
    assert not placed(small_v1.graph, replace(CPU, times=replace(default, kernels=slow))).islands


def test_a_slow_sum_is_computed_in_float_and_the_file_agrees(small_v1, inputs):
    """Islands all over the residual stream, tensors read in both types among them."""
    graph = placed(prepared(read(small_v1.tflite), CPU), replace(CPU, times=scaled(20, "ADD int8")))
    sums = [n for n in graph.nodes if n.op == "ADD"]
    assert sum(not n.is_int8 for n in sums) > len(sums) / 2
    both = [t for t in graph.islands if graph.is_both(t)]
    assert both
    found = built(graph, inputs)
    assert found.ops[("ADD", "FLOAT32")] == sum(not n.is_int8 for n in sums)


def test_sums_of_squares_in_float_are_mul_and_sum_in_the_file(small_v2, enlarged, inputs):
    """XNNPACK's BATCH_MATMUL of a row with itself took 11 of 16 ms of mobilevitv2_075."""
    graph = placed(small_v2.graph, replace(CPU, times=enlarged))
    squares = [n for n in graph.nodes if is_sum_of_squares(graph, n)]
    assert len(squares) == 21
    assert all(not n.is_int8 and graph.stays_inside(n.inputs[0]) for n in squares)
    products = [n for n in graph.nodes if n.op == "BATCH_MATMUL" and not n.is_int8]
    found = built(graph, inputs)
    assert found.ops[("SUM", "FLOAT32")] == len(squares)
    assert found.ops.get(("BATCH_MATMUL", "FLOAT32"), 0) == len(products) - len(squares)
    shipped = Executor(float_sums_of_squares.apply(graph), torch.float64).rows(inputs[:2])
    expected = Executor(graph, torch.float64).rows(inputs[:2])
    assert float((shipped - expected).abs().max()) < 1e-9 * float(expected.abs().max())


def test_a_right_operand_of_squares_is_float_only_with_them(small_v2):
    default = default_profile()
    slow = {n: replace(k, ns_per_element=1e3) if n == "SUM float32" else k for n, k in default.kernels.items()}
    graph = placed(small_v2.graph, replace(CPU, times=replace(default, kernels=slow)))
    squares = [n for n in graph.nodes if is_sum_of_squares(graph, n)]
    assert not any(not n.is_int8 or n.inputs[0] in graph.islands for n in squares)


def test_float_readers_see_what_int8_readers_see_rounded():
    graph = line("GELU", "GELU")
    last = replace_inputs(graph.nodes[-1], (1, 99))
    graph = replace(graph, nodes=(*graph.nodes[:-1], last))
    graph = with_islands(graph, "cpu", {1, 2})  # t1: read by GELU and the layer
    assert graph.is_both(1)
    assert not graph.is_both(2)
    x = torch.linspace(-2, 2, ELEMENTS)[None]
    seen = []

    def hook(tensor, y, node):
        return y * 0 if tensor.id == 1 else y

    for floats in (graph.islands, frozenset()):
        found = Executor(with_islands(graph, "cpu", floats)).run(x, hook, (1, 2))
        assert not found[1].any()
        seen.append(bool(found[2].any()))
    assert seen == [True, False]


def replace_inputs(node, inputs):
    return Node(node.op, node.attrs, inputs, node.outputs)


def test_names_bring_islands_back(small_v1):
    graph = placed(small_v1.graph, CPU)
    names = tuple(graph.tensors[t].name for t in graph.islands)
    plan = QuantPlan({}, "minmax", profile="cpu", floats=names, latency="Pi")
    again = QuantPlan.from_json(plan.to_json())
    assert with_islands(small_v1.graph, "cpu", ids_of(small_v1.graph, again.floats)).islands == graph.islands
    assert again.latency == "Pi"


def test_a_build_takes_a_profile_and_keeps_it(tmp_path, small_v1, pictures):
    from PIL import Image

    for i, picture in enumerate(pictures[:4]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    board = tmp_path / "slow.json"
    board.write_text(scaled(20, "ADD int8").to_json())
    plans = []
    for number, file in enumerate(("litert", board)):
        work = Work(tmp_path / f"w{number}")
        work.folder.mkdir()
        (work.folder / FLOAT).write_bytes(small_v1.tflite)
        (work.folder / FACTS).write_text(json.dumps(small_v1.facts))
        target = TargetConfig(str(file), integer=False)
        stages.calibrate(work, DataConfig(tmp_path, 4, "squash"), MethodConfig("minmax"), target)
        plans.append(stages.plan_of(work))
        solved = stages.solved(work).folded
        assert {solved.tensors[t].name for t in solved.islands} == set(plans[-1].floats)
        kept = json.loads((work.folder / LATENCY).read_text())
        assert kept == json.loads(board.read_text() if number else default_profile().to_json())
    assert len(plans[1].floats) > len(plans[0].floats)


def test_a_profile_that_is_not_there_costs_no_export(tmp_path, pictures):
    from PIL import Image

    Image.fromarray(pictures[0]).save(tmp_path / "0.png")
    for name, words in (("litert-cortex-a99", "unknown target 'litert-cortex-a99'"), ("a.json", "a.json does not")):
        with pytest.raises((InputError, UsageError), match=words):
            api.build("mobilevit_xxs", tmp_path, tmp_path / "out", target=name)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} <= {"0.png", "lock"}


def attention_like():
    """Picture [1, 4, 4, 3] -> CONV_2D -> SOFTMAX over 8 channels -> CONV_2D -> MEAN -> 5 logits."""
    rng = np.random.default_rng(0)
    shapes = {"x": (1, 4, 4, 3), "a": (1, 4, 4, 8), "s": (1, 4, 4, 8), "b": (1, 4, 4, 5), "y": (1, 5)}
    tensors = {i: Tensor(i, name, shape, "FLOAT32") for i, (name, shape) in enumerate(shapes.items())}
    for i, shape in ((10, (8, 1, 1, 3)), (11, (8,)), (12, (5, 1, 1, 8)), (13, (5,))):
        data = rng.normal(0, 2, shape).astype(np.float32)
        tensors[i] = Tensor(i, f"w{i}", shape, "FLOAT32", data)
    tensors[14] = Tensor(14, "axes", (2,), "INT32", np.array([1, 2], np.int32))
    conv = spec("CONV_2D").attrs()
    nodes = (
        Node("CONV_2D", conv, (0, 10, 11), (1,)), Node("SOFTMAX", spec("SOFTMAX").attrs(), (1,), (2,)),
        Node("CONV_2D", conv, (2, 12, 13), (3,)), Node("MEAN", spec("MEAN").attrs(), (3, 14), (4,)),
    )  # fmt: skip
    return Graph(tensors, nodes, (0,), (4,))


def test_the_method_buys_accuracy_with_float_kernels():
    """Float is slower for softmax here, by so little of the whole that the objective takes it."""
    small = made_up(border_us=0.1, SOFTMAX_int8=3, SOFTMAX_float32=3)
    latency = replace(small, kernels={**small.kernels, "CONV_2D int8": KernelTime(fixed_us=1000.0)})
    graph, chosen, said = attention_like(), method("qhyvit"), []
    assert not placed(graph, replace(CPU, times=latency)).islands
    options = {**chosen.defaults, "rounds": 2, "learn": 0, "ridge": 0.0, "rounding": False, "bias": False}
    images = torch.rand(8, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    problem = Problem(graph, images, target=replace(CPU, times=latency), log=said.append)
    solution = chosen.search(problem, options)
    assert solution.graph.islands == {2}
    assert "float kernel for s" in said
    assert not solution.graph.widened
    plan = QuantPlan(solution.tensors, "qhyvit", profile="cpu")
    assert census(quantized_file(solution.shipped, plan)).ops[("SOFTMAX", "FLOAT32")] == 1
    stays = chosen.search(replace(problem, target=replace(problem.target, floats=False)), {**options, "int16_ms": 0.0})
    assert not stays.graph.islands


def test_a_range_that_a_float_kernel_read_is_mended_for_the_int8_one():
    """RSQRT takes nothing below its lowest code; a mean that a float root read had zero point 0: no file was made."""
    graph = line("GELU", "RSQRT")
    keep = {t.name: TensorQuant((0.1,), (0,)) for t in graph.activations()}
    chosen = ranges_behind(Problem(graph, torch.zeros(1, ELEMENTS)), keep, {})
    by_name = {graph.tensors[g.members[0]].name: q for g, q in chosen.items()}
    assert by_name["t1"].zero_point == (-128,)
    assert by_name["t1"].scale[0] * 255 == pytest.approx(12.7)
    assert by_name["t0"] == keep["t0"]
