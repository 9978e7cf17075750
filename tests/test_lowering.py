"""The typed graph of small graphs and plans written by hand: every dtype, scale and code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qhyvit.graph import edit
from qhyvit.graph.ir import FLOAT, INT8, INT16, Graph, Quantization
from qhyvit.latency.profile import default_profile
from qhyvit.latency.work import KernelWork, float_work, work_of
from qhyvit.lowering.int16_roots import limits, ops_before_root, parted_roots
from qhyvit.lowering.int16_scales import scales
from qhyvit.lowering.lower import lower, shifts
from qhyvit.lowering.placement import fastest_ms, is_long_softmax
from qhyvit.lowering.profiles import may_be_float, wide_cost_ms, widened, with_gates, with_islands
from qhyvit.ops.shared.spec import Kernel
from qhyvit.plan import TensorQuant
from qhyvit.sim.integer import IntegerExecutor
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.report import first_difference
from tests._graphs import Builder
from tests._plans import graph_of, plan_of


@pytest.fixture
def made() -> Builder:
    return Builder(np.random.default_rng(0))


def codes_of(graph: Graph, name: str) -> np.ndarray:
    data = graph.by_name[name].data
    assert data is not None
    return data


# --- the typed graph ---


def test_a_rectifier_by_itself_is_a_quantize_that_saturates(made: Builder) -> None:
    """XNNPACK has no int8 RELU; its result's codes begin at 0."""
    x = made.add("RELU", made.conv(made.input))
    graph = graph_of(made, made.conv(x, 4))
    plan = plan_of(graph)
    assert plan.tensors[graph.tensors[x].name].zero_point == (-128,)
    typed = lower(graph, plan).graph
    assert [n.op for n in typed.nodes] == ["CONV_2D", "QUANTIZE", "CONV_2D"]
    codes = np.random.default_rng(0).integers(-128, 128, (3, 4, 4, 3))
    found = IntegerExecutor(typed, Kernel.REFERENCE).run(codes, [t.id for t in typed.activations()])
    before, after = (found[typed.nodes[1].inputs[0]], found[typed.nodes[1].outputs[0]])
    read, write = (typed.tensors[t].quantization for t in (*typed.nodes[1].inputs, *typed.nodes[1].outputs))
    assert read is not None
    assert write is not None
    real = np.maximum((before - read.zero_point) * read.scale[0], 0) / write.scale[0] - 128
    assert (np.abs(after - np.clip(real, -128, 127)) <= 0.5 + 1e-6).all()
    assert (after == -128).mean() > 0.1


def test_a_rectifier_whose_codes_begin_below_0_stays(made: Builder) -> None:
    """A matrix product's right operand has its zero point at 0."""
    x = made.reshape(made.add("RELU", made.conv(made.input)), 1, 16, 6)
    y = made.reshape(made.conv(made.input), 1, 16, 6)
    graph = graph_of(made, made.add("BATCH_MATMUL", y, x, adj_y=True))
    assert "RELU" in {n.op for n in lower(graph, plan_of(graph)).graph.nodes}


def test_a_layer_has_codes_of_the_plan_and_a_bias_in_steps_of_both(made: Builder) -> None:
    x = made.conv(made.input)
    graph = graph_of(made, x)
    plan = plan_of(graph)
    typed = lower(graph, plan).graph
    (node,) = typed.nodes
    data, weight, bias = (typed.tensors[t] for t in node.inputs)
    read, out = plan.tensors[data.name], plan.tensors[typed.tensors[node.outputs[0]].name]
    assert (data.dtype, data.quantization) == (INT8, Quantization(read.scale, 5))
    assert (weight.dtype, weight.quantization) == (INT8, Quantization(plan.tensors[weight.name].scale, 0, 0))
    steps = [read.scale[0] * s for s in plan.tensors[weight.name].scale]
    assert bias.dtype == "INT32"
    assert bias.quantization.bits == 32
    assert bias.quantization.axis == 0
    assert bias.quantization.scale == pytest.approx(steps)
    values = graph.constant(graph.nodes[0].inputs[2]).astype(np.float64)
    assert codes_of(typed, bias.name).tolist() == np.rint(values / steps).astype(int).tolist()
    assert typed.tensors[node.outputs[0]].quantization == Quantization(out.scale, 5)


def test_a_file_says_what_was_planned_whatever_the_scales(made: Builder) -> None:
    """A learned scale at its least value, 1e-7, is no float32; nor are the weights' hundredths of this plan."""
    graph = graph_of(made, made.conv(made.input))
    plan = plan_of(graph, **{graph.tensors[graph.outputs[0]].name: TensorQuant((1e-7,), (-91,))})
    typed = lower(graph, plan).graph
    assert first_difference(typed, read(serialize(typed))) is None


@pytest.mark.parametrize(
    ("bits", "low", "expected"),
    [
        (8, None, []), (8, -127, [-1]), (6, -128, [192]), (4, -128, [240]),
        (6, -32, [96, -96]), (7, -64, [64, -64]), (6, -31, [95, -97]), (4, -8, [120, -120]),
    ],
)  # fmt: skip
def test_clamps_put_the_ends_of_small_grids_at_those_of_int8(bits: int, low: int | None, expected: list[int]) -> None:
    """Saturation cuts at 127 first, then at -128; behind all shifts the codes are the plan's."""
    quant = TensorQuant((0.5,), (low or 0,), bits=bits, low=low)
    assert shifts(quant) == expected
    codes = np.arange(-400, 400)
    for shift in (*expected, 0):
        codes = np.clip(codes + shift, -128, 127) - shift
    assert (codes.min(), codes.max()) == quant.limits


def test_small_grids_are_clamped_by_quantize_ops(made: Builder) -> None:
    x = made.conv(made.input)
    y = made.add("ABS", x)
    graph = graph_of(made, y)
    plan = plan_of(graph, conv_2d=TensorQuant((0.5,), (0,), bits=6))
    typed = lower(graph, plan).graph
    assert [n.op for n in typed.nodes] == ["CONV_2D", "QUANTIZE", "QUANTIZE", "ABS"]
    zero_points = [typed.tensors[n.outputs[0]].quantization.zero_point for n in typed.nodes[:3]]
    assert zero_points == [96, -96, 0]
    assert {typed.tensors[n.outputs[0]].quantization.scale for n in typed.nodes[:3]} == {(0.5,)}
    assert typed.tensors[typed.nodes[3].inputs[0]].name == graph.tensors[x].name


def test_a_tensor_is_held_once_in_each_type(made: Builder) -> None:
    """One that float nodes and int8 nodes read, and one that float nodes write and both read."""
    x = made.conv(made.input)
    a, b = made.add("ABS", x), made.add("ABS", made.add("LEAKY_RELU", x, alpha=0.25))
    c, d = made.add("EXP", a), made.add("TANH", a)
    graph = graph_of(made, made.add("ABS", c), d, b)
    graph = edit.computed_in(graph, [a, c], FLOAT, FLOAT)
    plan = plan_of(graph)
    lowered = lower(graph, plan)
    typed = lowered.graph
    names = [n.op for n in typed.nodes]
    assert names.count("DEQUANTIZE") == 1
    assert names.count("QUANTIZE") == 2
    kinds = {n.op: [typed.tensors[t].dtype for t in (*n.inputs, *n.outputs)] for n in typed.nodes}
    assert {op: kinds[op] for op in ("EXP", "TANH")} == {"EXP": [FLOAT, FLOAT], "TANH": [INT8, INT8]}
    for t in graph.activations():
        held = typed.by_name[lowered.held[t.name]]
        assert held.dtype == INT8
        assert held.quantization.scale == plan.tensors[t.name].scale
    assert all(typed.tensors[t].dtype == INT8 for t in (*typed.inputs, *typed.outputs))


def test_islands_of_int16_hold_codes_without_a_rounding(made: Builder) -> None:
    """What an int8 tensor becomes has 128 steps in one of its own; constants have the scale that they need."""
    x = made.conv(made.input)
    factor = made.constant(6)
    y = made.add("MUL", x, factor)
    graph = edit.computed_in(graph_of(made, made.add("ABS", y)), [y], INT16, INT16)
    base = plan_of(graph)
    scale = base.tensors[graph.tensors[x].name].scale[0]
    name = graph.tensors[y].name
    for given, expected in (({name: 0.25}, 0.25), ({}, base.tensors[name].scale[0] / 128)):
        typed = lower(graph, replace(base, int16=given)).graph
        node = next(n for n in typed.nodes if n.op == "MUL")
        left, right, out = (typed.tensors[t] for t in (*node.inputs, *node.outputs))
        assert {t.dtype for t in (left, right, out)} == {INT16}
        assert left.quantization == Quantization((scale / 128,), 0, bits=16)
        assert out.quantization == Quantization((expected,), 0, bits=16)
        largest = float(np.abs(graph.constant(factor)).max())
        assert right.quantization.scale == pytest.approx((largest / 32767,))
        assert np.abs(codes_of(typed, right.name)).max() == 32767
        assert [n.op for n in typed.nodes] == ["CONV_2D", "QUANTIZE", "MUL", "QUANTIZE", "ABS"]


def test_a_widened_softmax_writes_its_kernels_int16_grid(made: Builder) -> None:
    squashed = made.add("SOFTMAX", made.tokens(made.conv(made.input)), beta=1.0)
    graph = widened(graph_of(made, made.add("ABS", squashed)), [squashed])
    typed = lower(graph, plan_of(graph)).graph
    node = next(n for n in typed.nodes if n.op == "SOFTMAX")
    assert typed.tensors[node.inputs[0]].dtype == INT8
    out = typed.tensors[node.outputs[0]]
    assert (out.dtype, out.quantization.scale, out.quantization.zero_point) == (INT16, (1 / 65536,), -32768)


# --- int16 roots ---


def norm(b: Builder, *, factor: float = 0.25, eps: float = 0.5) -> tuple[Graph, int, int]:
    """x * rsqrt(factor * sum of squares + eps) by a product: the graph, the sum and the root."""
    x = b.reshape(b.conv(b.input), 1, 1, 96)
    total = b.add("BATCH_MATMUL", x, x, adj_y=True)
    share = b.add("MUL", total, b.tensor("factor", (1,), data=np.array([factor], np.float32)))
    raised = b.add("ADD", share, b.tensor("eps", (1,), data=np.array([eps], np.float32)))
    root = b.add("RSQRT", b.reshape(raised, 1, 1, 1))
    result = b.add("MUL", x, root)
    graph = graph_of(b, result)
    return edit.computed_in(graph, [n.outputs[0] for n in graph.nodes[1:]], INT16, INT16), total, root


def test_the_chain_from_squares_to_a_root_is_found(made: Builder) -> None:
    graph, _, root = norm(made)
    found = ops_before_root(graph, graph.producer(root))
    assert [n.op for n in found] == ["BATCH_MATMUL", "MUL", "ADD", "RESHAPE"]
    other = Builder(np.random.default_rng(1))
    graph, _, root = norm(other, factor=-0.25)
    assert ops_before_root(graph, graph.producer(root)) == []


@pytest.mark.parametrize(("high", "parted"), [(15.9, False), (16.1, True)])
def test_a_root_is_parted_where_its_values_lie_far_apart(made: Builder, high: float, parted: bool) -> None:
    graph, total, _ = norm(made)
    asked = []

    def ends(t: int) -> tuple[float, float]:
        asked.append(t)
        return 1.0, high

    found = parted_roots(graph, ends)
    assert asked == [total]
    assert (found is not graph) == parted
    if parted:
        found.check()
        squares = np.float32(np.sqrt(2 * high))
        roots = [n for n in found.nodes if n.op == "RSQRT"]
        assert len(roots) == 2
        assert squares in [pytest.approx(v) for v in limits(found).values()]
        limit = 0.25 * squares + 0.5
        known = [t for t in found.tensors.values() if t.data is not None and t.dtype == FLOAT]
        constants = [float(t.data.flat[0]) for t in known]
        assert limit in [pytest.approx(c) for c in constants]
        assert limit**-0.5 in [pytest.approx(c) for c in constants]


def test_scales_of_islands_hold_twice_the_peak_or_what_they_copy(made: Builder) -> None:
    x = made.conv(made.input)
    copy = made.tokens(x)
    doubled = made.add("ADD", copy, copy)
    again = made.reshape(doubled, 1, 4, 4, 6)
    graph = graph_of(made, made.add("ABS", again))
    graph = edit.computed_in(graph, [copy, doubled, again], INT16, INT16)
    names = {t: graph.tensors[t].name for t in (x, copy, doubled, again)}
    found = scales(graph, {names[x]: TensorQuant((0.5,), (5,))}, {doubled: 3.0})
    assert found == {
        names[copy]: 0.5 / 128, names[doubled]: pytest.approx(6.0 / 32767), names[again]: found[names[doubled]]
    }  # fmt: skip


# --- profiles ---


def test_islands_have_the_profiles_type_and_the_old_ones_end(made: Builder) -> None:
    x = made.conv(made.input)
    a, b = made.add("ABS", x), made.add("TANH", x)
    graph = graph_of(made, a, b)
    for profile, kind in (("cpu", FLOAT), ("integer", INT16)):
        found = with_islands(with_islands(graph, "cpu", [b]), profile, [a])
        assert {(n.op, n.reads, n.writes) for n in found.nodes} == {
            ("CONV_2D", INT8, INT8), ("ABS", kind, kind), ("TANH", INT8, INT8)}  # fmt: skip
    assert [may_be_float(graph, t) for t in (made.input, x, a)] == [False, False, True]
    gated = with_gates(with_gates(graph, [graph.tensors[a].name]), [graph.tensors[b].name])
    assert [n.gate for n in gated.nodes] == [False, False, True]


def test_the_fastest_way_is_the_sum_of_each_nodes_faster_kernel(made: Builder) -> None:
    x = made.conv(made.input)
    squashed = made.add("SOFTMAX", made.tokens(x), beta=1.0)
    graph = graph_of(made, made.add("GELU", squashed))
    latency = default_profile()
    expected = 0.0
    for node in graph.nodes:
        ways = [latency.ms(work_of(graph, node, "int8", "int8"))]
        parts = [latency.ms(part) for part in float_work(graph, node)]
        ways.append(None if None in parts else sum(parts))
        expected += min((w for w in ways if w is not None), default=0.0)
    assert expected > 0
    assert fastest_ms(graph, latency) == pytest.approx(expected)


def test_what_a_wide_softmax_costs(made: Builder) -> None:
    x = made.conv(made.input)
    squashed = made.add("SOFTMAX", made.tokens(x), beta=1.0)
    graph = graph_of(made, made.add("ABS", squashed))
    latency = default_profile()
    assert wide_cost_ms(graph, x, latency) is None
    assert wide_cost_ms(graph, made.input, latency) is None
    assert wide_cost_ms(edit.computed_in(graph, [squashed], FLOAT, FLOAT), squashed, latency) is None
    cost = wide_cost_ms(graph, squashed, latency)
    node = graph.producer(squashed)
    narrow, wide = (latency.ms(work_of(graph, node, "int8", kind)) for kind in ("int8", "int16"))
    assert cost == pytest.approx(max(wide - narrow + latency.ms(KernelWork("QUANTIZE int16>int8", 96)), 0.0))


@pytest.mark.parametrize(("positions", "is_long"), [(511, False), (512, True), (513, True)])
def test_a_softmax_is_long_where_equal_weights_round_to_nothing(made: Builder, positions: int, is_long: bool) -> None:
    """1 / 512 is half a step of 1 / 256."""
    x = made.reshape(made.conv(made.input, positions), 16, positions)
    graph = graph_of(made, made.add("SOFTMAX", x, beta=1.0))
    assert is_long_softmax(graph, graph.nodes[-1]) == is_long
    assert not is_long_softmax(graph, graph.nodes[0])
