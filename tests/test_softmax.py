"""Softmax made of int8 ops that XNNPACK has."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.contracts import groups
from qhyvit.lowering.lower import lower
from qhyvit.lowering.profiles import long_softmaxes, widened, with_islands
from qhyvit.methods import method
from qhyvit.methods.shared import softmax
from qhyvit.methods.shared.bridge_blocks import bridges
from qhyvit.methods.shared.learning import learn
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.ranges import ends, finish
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.fakequant import FakeQuant
from qhyvit.sim.run import Executor
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.agree import op_by_op
from qhyvit.verify.census import census
from qhyvit.verify.decide import HERE
from tests._codes import input_codes
from tests._targets import CPU, INTEGER


def softmax_graph(rows, count):
    """softmax(x) over the last axis, times a constant, then a layer."""
    tensors = [
        Tensor(0, "x", (1, rows, count), "FLOAT32"), Tensor(1, "p", (1, rows, count), "FLOAT32"),
        Tensor(2, "w", (3, count), "FLOAT32", np.random.default_rng(0).normal(size=(3, count)).astype(np.float32)),
        Tensor(3, "y", (1, rows, 3), "FLOAT32"), Tensor(4, "b", (3,), "FLOAT32", np.zeros(3, np.float32)),
    ]  # fmt: skip
    nodes = (
        Node("SOFTMAX", spec("SOFTMAX").attrs(), (0,), (1,)),
        Node("FULLY_CONNECTED", spec("FULLY_CONNECTED").attrs(keep_num_dims=True), (1, 2, 4), (3,)),
    )
    return Graph({t.id: t for t in tensors}, nodes, (0,), (3,))


@pytest.mark.parametrize(("spread", "factor"), [(0.1, 32.0), (6.0, 1.0)])
def test_the_ops_together_are_the_softmax_times_a_power_of_two(spread, factor):
    graph = softmax_graph(512, 64)
    x = spread * torch.randn(2, 512, 64, generator=torch.Generator().manual_seed(0))
    made = softmax.unroll(Problem(graph, x)).graph
    assert [n.op for n in made.nodes] == [
        "REDUCE_MAX", "SUB", "ELU", "FULLY_CONNECTED", "LOG", "SUB", "ELU", "ADD", "FULLY_CONNECTED",
    ]  # fmt: skip
    found = Executor(made, torch.float64).run(x, None, [1])
    exact = torch.softmax(x.double(), dim=-1)
    assert torch.allclose(found[1][:, 0], factor * exact, atol=1e-6)
    assert factor * exact.max() <= 1
    assert torch.allclose(found[3], Executor(graph, torch.float64).run(x)[3], atol=1e-6)


def test_the_edited_network_is_the_same_where_calibration_saw_less():
    graph = softmax_graph(512, 64)
    x = 0.1 * torch.randn(2, 512, 64, generator=torch.Generator().manual_seed(0))
    made = softmax.unroll(Problem(graph, x)).graph
    outputs = Executor(graph, torch.float64).run(50 * x)[3]
    assert torch.allclose(Executor(made, torch.float64, exact=True).run(50 * x)[3], outputs, atol=1e-6)
    assert not torch.allclose(Executor(made, torch.float64).run(50 * x)[3], outputs, atol=0.1)


def test_a_peak_that_float32_puts_above_one_halves_nothing(monkeypatch):
    monkeypatch.setattr(softmax, "_peaks", lambda problem, nodes: dict.fromkeys([1], 1.0000001))
    made = softmax.unroll(Problem(softmax_graph(512, 64), torch.zeros(1, 512, 64))).graph
    ones = next(n.inputs[1] for n in made.nodes if n.op == "FULLY_CONNECTED")
    assert (made.constant(ones) == 1).all()


@pytest.fixture(scope="module")
def built():
    """The ops with min-max ranges: graph, quantizations, file, inputs and their codes."""
    x = 2 * torch.randn(6, 512, 64, generator=torch.Generator().manual_seed(1))
    problem = softmax.unroll(Problem(softmax_graph(512, 64), x))
    solution = method("minmax").search(problem, {"observer": "minmax"})
    lowered = lower(solution.shipped, QuantPlan(solution.tensors, "minmax"))
    return solution, serialize(lowered.graph), x, input_codes(solution, x), lowered


def test_the_file_has_int8_kernels_alone_and_xnnpack_takes_all_but_the_logarithm(built):
    found = census(built[1])
    assert {dtype for _, dtype in found.ops} == {"INT8"}
    assert found.float_tensors == ()
    assert found.not_delegated == {"LOG": 1}
    assert [op for op, _ in found.ops if op in ("ELU", "LOG", "REDUCE_MAX", "SQRT", "REDUCE_MIN")] == [
        "REDUCE_MAX", "ELU", "LOG",
    ]  # fmt: skip


def test_the_simulation_knows_every_code(built):
    solution, data, x, codes, lowered = built
    found = op_by_op(solution.graph, lowered, data, x, codes, HERE)
    assert not found.missing
    assert {op: o.worst for op, o in found.ops.items()} == dict.fromkeys(found.ops, 0)


def test_spread_attention_keeps_its_shape_where_the_int8_kernel_rounds_it_away():
    x = 0.5 * torch.randn(4, 128, 256, generator=torch.Generator().manual_seed(2))
    noise = {}
    for name, graph in (("kernel", softmax_graph(128, 256)), ("ops", None)):
        problem = Problem(graph, x) if graph is not None else softmax.unroll(Problem(softmax_graph(128, 256), x))
        solution = method("minmax").search(problem, {"observer": "minmax"})
        hook = FakeQuant(solution.tensors)
        exact = Executor(problem.graph).run(x, None, [1])[1]
        error = Executor(solution.shipped).run(x, hook, [1])[1] - exact
        noise[name] = float((error**2).mean() / (exact**2).mean())
    assert noise["ops"] < noise["kernel"] / 8


def test_int16_without_a_layer_behind_stays():
    graph = softmax_graph(2, 512)
    alone = replace(graph, nodes=graph.nodes[:1], outputs=(1,))
    x = torch.randn(2, 2, 512)
    for each, count in ((graph, 8), (alone, 0)):
        made = softmax.unroll(Problem(widened(each, long_softmaxes(each)), x)).graph
        assert len(made.nodes) == len(each.nodes) + (count - 1 if count else 0)
        assert made.widened == (frozenset() if count else {1})


def test_bridge_blocks_are_found_as_before(small_v1, inputs):
    made = softmax.unroll(Problem(small_v1.graph, inputs[:2]))
    assert [n.op for n in made.graph.nodes].count("LOG") == 2
    named = [[g.tensors[b.tensor].name for b in bridges(g)] for g in (small_v1.graph, made.graph)]
    assert named[0] == named[1]
    with torch.no_grad():
        before, after = (Executor(g).rows(inputs[:2]) for g in (small_v1.graph, made.graph))
    assert torch.allclose(before, after, atol=1e-3)


def test_what_weighs_nothing_stays_nothing():
    """1 + ELU of thousands of positions that attention leaves out: -1 is a code in every range that is searched."""
    x = 3 * torch.randn(8, 128, 256, generator=torch.Generator().manual_seed(3))
    problem = softmax.unroll(Problem(softmax_graph(128, 256), x))
    assert {g.floor for g in groups(problem.graph)} == {None, -1.0}
    chosen = method("qhyvit")
    wanted = {"rounds": 2, "learn": 2, "search_images": 6, "ridge": 0.0, "rounding": False}
    solution = chosen.search(problem, {**chosen.defaults, **wanted})
    elu = [solution.tensors[n] for n in solution.tensors if "/elu" in n]
    assert [q.zero_point for q in elu] == [(127,), (127,)]
    assert [q.scale[0] for q in elu] == pytest.approx([1 / 255, 1 / 255], rel=1e-5)


def test_learning_leaves_the_floor_alone(built):
    solution, _, x, _, _ = built
    problem = Problem(solution.graph, x)
    learned = learn(problem, solution.shipped, solution.tensors, 4)
    moved = {n for n, q in learned.items() if q.axis is None and q.scale != solution.tensors[n].scale}
    assert moved
    assert not [n for n in moved if "/elu" in n]


def grouped_graph(rows, groups, count):
    """x -> layer -> [RESHAPE] softmax over ``count`` values [RESHAPE] -> layer, as attention to a few tokens has it."""
    width, rng = groups * count, np.random.default_rng(0)
    flat, grouped = (1, rows, width), (1, rows, groups, count)
    weight, bias = rng.normal(size=(width, width)).astype(np.float32), np.zeros(width, np.float32)
    shapes = {"x": flat, "scores": flat, "rows": grouped, "p": grouped, "attention": flat, "y": flat}
    constants = {"w": weight, "b": bias, "grouped": np.array(grouped, np.int32), "flat": np.array(flat, np.int32)}
    names = [*shapes, *constants]
    tensors = [
        *[Tensor(i, name, shape, "FLOAT32") for i, (name, shape) in enumerate(shapes.items())],
        *[Tensor(6 + i, n, v.shape, v.dtype.name.upper(), v) for i, (n, v) in enumerate(constants.items())],
    ]
    wired = [
        ("FULLY_CONNECTED", ("x", "w", "b"), "scores"), ("RESHAPE", ("scores", "grouped"), "rows"),
        ("SOFTMAX", ("rows",), "p"), ("RESHAPE", ("p", "flat"), "attention"),
        ("FULLY_CONNECTED", ("attention", "w", "b"), "y"),
    ]  # fmt: skip
    attrs = {"FULLY_CONNECTED": {"keep_num_dims": True}}
    nodes = tuple(
        Node(op, spec(op).attrs(**attrs.get(op, {})), tuple(map(names.index, inputs)), (names.index(out),))
        for op, inputs, out in wired
    )
    graph = Graph({t.id: t for t in tensors}, nodes, (0,), (5,))
    graph.check()
    return graph


def quotient_problem(spread=1.0):
    x = spread * torch.randn(4, 196, 6, generator=torch.Generator().manual_seed(4))
    return Problem(grouped_graph(196, 2, 3), x, target=CPU)


def test_few_values_are_a_quotient_of_exponentials():
    problem = quotient_problem()
    made = softmax.quotients(problem).graph
    assert [n.op for n in made.nodes] == ["FULLY_CONNECTED", "EXP", "BATCH_MATMUL", "DIV", "FULLY_CONNECTED"]
    assert {made.producer(t).op for t in made.islands} == {"EXP", "BATCH_MATMUL", "DIV"}
    name = problem.graph.by_name["attention"].id
    found = Executor(made, torch.float64).run(problem.images, None, [1, name])
    exact = torch.softmax(found[1].reshape(4, 1, 196, 2, 3), dim=-1).reshape(found[name].shape)
    assert torch.allclose(found[name], exact, atol=1e-12)


def test_a_quotient_without_reshapes_sums_its_own_row_alone():
    graph = softmax_graph(512, 7)
    x = torch.randn(2, 512, 7, generator=torch.Generator().manual_seed(5))
    made = softmax.quotients(Problem(graph, x, target=CPU)).graph
    assert [n.op for n in made.nodes] == ["EXP", "BATCH_MATMUL", "DIV", "FULLY_CONNECTED"]
    assert torch.allclose(Executor(made).run(x, None, [1])[1], torch.softmax(x, dim=-1)[:, None], atol=1e-6)


def test_scores_that_could_overflow_and_other_profiles_keep_their_softmax():
    large, small = quotient_problem(spread=30.0), quotient_problem()
    few = Problem(grouped_graph(16, 2, 3), torch.randn(1, 16, 6), target=CPU)
    for problem in (large, replace(small, target=INTEGER), few):
        assert softmax.quotients(problem).graph is problem.graph


def test_no_code_of_a_score_overflows_however_wide_its_range_was_learned():
    graph = softmax.quotients(quotient_problem()).graph
    wide = TensorQuant((1.5,), (-28,))  # -150 to 232.5
    found = finish(graph, {"scores": wide})["scores"]
    low, high = ends(found)
    assert (found.zero_point, high) == ((-28,), pytest.approx(80.0))
    assert 0 < np.exp(np.float32(low)) < np.exp(np.float32(high)) * 100 < np.inf
    assert finish(graph, {"scores": replace(wide, scale=(0.5,))})["scores"].scale == (0.5,)


def test_what_shares_a_grid_with_a_score_follows_it():
    """scores -> RESHAPE -> EXP: one grid for both, as TFLite wants."""
    graph = grouped_graph(196, 2, 3)
    nodes = [Node("EXP", spec("EXP").attrs(), n.inputs, n.outputs) if n.op == "SOFTMAX" else n for n in graph.nodes]
    graph = with_islands(replace(graph, nodes=tuple(nodes)), "cpu", {graph.by_name["p"].id})
    found = finish(graph, dict.fromkeys(("scores", "rows"), TensorQuant((1.5,), (-28,))))
    assert found["scores"].scale == found["rows"].scale
    assert max(map(abs, ends(found["rows"]))) == pytest.approx(80.0)


def test_the_file_with_a_quotient_decides_as_the_simulation():
    chosen, problem = method("qhyvit"), quotient_problem()
    options = {**chosen.defaults, "rounds": 2, "learn": 0, "ridge": 0.0, "rounding": False}
    solution = chosen.search(problem, options)
    floats = {solution.graph.producer(t).op for t in solution.graph.islands}
    assert {"EXP", "BATCH_MATMUL", "DIV"} <= floats
    lowered = lower(solution.shipped, QuantPlan(solution.tensors, "qhyvit"))
    data = serialize(lowered.graph)
    found = census(data)
    assert not found.not_delegated
    assert {op for op, dtype in found.ops if dtype == "FLOAT32"} >= {"EXP", "BATCH_MATMUL", "DIV"}
    codes = input_codes(solution, problem.images)
    checked = op_by_op(solution.graph, lowered, data, problem.images, codes, HERE)
    assert not checked.missing
    assert max(o.worst for o in checked.ops.values()) == 0
