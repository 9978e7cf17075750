"""The typed graph of small graphs and plans written by hand: every dtype, scale, code and message."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qhyvit.errors import PlanError
from qhyvit.graph import edit
from qhyvit.graph.ir import FLOAT, INT8, INT16, Graph, Quantization
from qhyvit.latency.profile import default_profile
from qhyvit.latency.work import Work, float_work, work_of
from qhyvit.lowering.constants import constant_codes, constants_on_grid_of, on_grid
from qhyvit.lowering.contracts import check_plan, groups, operand_positions, quantized_operands, weights
from qhyvit.lowering.int16_roots import limits, ops_before_root, parted_roots
from qhyvit.lowering.int16_scales import scales
from qhyvit.lowering.lower import lower, shifts
from qhyvit.lowering.placement import fastest_ms, is_long_softmax
from qhyvit.lowering.profiles import may_be_float, wide_cost_ms, widened, with_gates, with_islands
from qhyvit.plan import Codes, QuantPlan, TensorQuant
from tests._graphs import Builder


@pytest.fixture
def made() -> Builder:
    return Builder(np.random.default_rng(0))


def graph_of(b: Builder, *outputs: int) -> Graph:
    graph = Graph({t.id: t for t in b.tensors}, tuple(b.nodes), (b.input,), outputs)
    graph.check()
    return graph


def plan_of(graph: Graph, **changed: TensorQuant) -> QuantPlan:
    """A scale for every group, powers of two, that its readers take; ``changed`` by the beginning of a name."""
    tensors = {}
    for i, group in enumerate(groups(graph)):
        scale, zero = group.fixed or (2.0 ** -(i % 4 + 3), -128 if group.low_at_zero else 0 if group.symmetric else 5)
        low = -127 if group.symmetric and not group.fixed else None
        for t in group.members:
            tensors[graph.tensors[t].name] = TensorQuant((scale,), (zero,), low=low)
    for _, weight, axis in weights(graph):
        steps = tuple(0.01 * (k + 1) for k in range(weight.shape[axis]))
        tensors[weight.name] = TensorQuant(steps, (0,) * len(steps), axis=axis)
    for start, quant in changed.items():
        names = [n for n in tensors if n.startswith(start)]
        assert names
        tensors |= dict.fromkeys(names, quant)
    return QuantPlan(tensors, "by hand")


def codes_of(graph: Graph, name: str) -> np.ndarray:
    data = graph.by_name[name].data
    assert data is not None
    return data


# --- constants ---


def test_codes_of_constants_are_rounded_and_cut_off() -> None:
    one = TensorQuant((0.5,), (3,))
    data = np.array([-100.0, -65.5, -0.26, 0.0, 0.24, 0.26, 61.9, 62.1, 100.0], np.float32)
    assert constant_codes(data, one).tolist() == [-128, -128, 2, 3, 3, 4, 127, 127, 127]
    assert on_grid(data, one).tolist() == [-65.5, -65.5, -0.5, 0.0, 0.0, 0.5, 62.0, 62.0, 62.0]
    assert constant_codes(data, one).dtype == np.int8
    assert on_grid(np.float32(0.26), one).shape == ()
    small = TensorQuant((0.5,), (-128,), bits=6, low=-128)
    assert constant_codes(np.array([-1.0, 0.0, 31.0, 99.0]), small).tolist() == [-128, -128, -66, -65]


def test_codes_of_weights_leave_out_the_lowest() -> None:
    quant = TensorQuant((0.5, 0.25), (0, 0), axis=1)
    data = np.array([[-99.0, -99.0], [-63.4, -31.7], [1.0, 1.0], [99.0, 99.0]], np.float32)
    assert constant_codes(data, quant).tolist() == [[-127, -127], [-127, -127], [2, 4], [127, 127]]
    assert on_grid(data, quant)[2:].tolist() == [[1.0, 1.0], [63.5, 31.75]]
    only = TensorQuant((0.5,), (0,), axis=0)
    assert constant_codes(np.array([[-99.0, 99.0]]), only).tolist() == [[-127, 127]]


def test_constants_that_are_named_are_rounded_and_no_others(made: Builder) -> None:
    named, other, whole = made.constant(5), made.constant(5), made.integers(3)
    total = made.add("ADD", made.add("ADD", made.input, made.constant(3)), made.constant(3))
    graph = graph_of(made, total)
    quant = TensorQuant((0.25,), (0,))
    quants = {graph.tensors[t].name: quant for t in (named, whole, made.input, total)}
    found = constants_on_grid_of(graph, quants)
    assert found.constant(named).tolist() == (np.rint(graph.constant(named) / 0.25) * 0.25).tolist()
    for t in (other, whole):
        assert found.constant(t).tolist() == graph.constant(t).tolist()
    assert not found.tensors[made.input].is_constant
    assert not found.tensors[total].is_constant


# --- groups ---


def test_copies_share_a_group_and_new_values_begin_one(made: Builder) -> None:
    x = made.conv(made.input)
    copy = made.tokens(x)
    pooled = made.add("AVERAGE_POOL_2D", x, padding="SAME", filter_height=2, filter_width=2, stride_h=1, stride_w=1)
    squashed = made.add("SOFTMAX", copy, beta=1.0)
    root = made.add("RSQRT", made.add("ABS", copy))
    product = made.add("BATCH_MATMUL", squashed, copy)
    elu = made.add("ELU", x)
    graph = graph_of(made, pooled, product, root, elu)
    by_member = {t: g for g in groups(graph) for t in g.members}
    assert by_member[x].members == (x, copy, pooled)
    assert by_member[x].roots == (x, pooled)
    assert by_member[x].symmetric
    assert not by_member[x].low_at_zero
    assert by_member[x].fixed is None
    assert by_member[squashed].fixed == (1 / 256, -128)
    assert not by_member[squashed].symmetric
    assert by_member[made.nodes[-5].outputs[0]].members == (made.nodes[-5].outputs[0],)
    absolute = next(n for n in graph.nodes if n.op == "ABS").outputs[0]
    assert by_member[absolute].low_at_zero
    assert by_member[elu].floor == -1.0
    assert by_member[product].floor is None
    assert sorted(by_member) == sorted(quantized_operands(graph))


def test_two_prescribed_scales_cannot_meet(made: Builder) -> None:
    x = made.conv(made.input)
    joined = made.add("CONCATENATION", made.add("LOGISTIC", x), made.add("TANH", x), axis=3)
    with pytest.raises(PlanError, match="two kernels prescribe different ones"):
        groups(graph_of(made, joined))
    other = Builder(np.random.default_rng(0))
    x = other.conv(other.input)
    alike = other.add("CONCATENATION", other.add("LOGISTIC", x), other.add("SOFTMAX", x, beta=1.0), axis=3)
    fixed = {g.fixed for g in groups(graph_of(other, alike)) if alike in g.members}
    assert fixed == {(1 / 256, -128)}


def test_operands_are_no_weights_biases_or_shapes(made: Builder) -> None:
    x, term = made.conv(made.input), made.constant(6)
    total = made.add("ADD", made.tokens(x), term)
    graph = graph_of(made, total)
    conv, reshape, add = graph.nodes
    assert [operand_positions(n) for n in (conv, reshape, add)] == [[0], [0, 1], [0, 1]]
    assert sorted(quantized_operands(graph)) == sorted([made.input, x, reshape.outputs[0], term, total])
    assert [(n.op, w.id, axis) for n, w, axis in weights(graph)] == [("CONV_2D", conv.inputs[1], 0)]


# --- plans that TFLite cannot express ---

BAD = [
    ("conv_2d", {"scale": (0.5, 0.5), "zero_point": (0, 0), "axis": 3}, "is channel-wise"),
    ("conv_2d", {"codes": Codes.LOG2}, "TFLite's are uniform"),
    ("conv_2d", {"scale": (0.51,)}, "scale 0.0625, zero point 0 must equal its group's scale 0.51, zero point 0"),
    ("conv_2d", {"zero_point": (1,)}, "its reader needs 0; use scheme symmetric"),
    ("conv_2d", {"low": -128}, "must leave out the code -128"),
    ("softmax", {"scale": (0.0039,)}, r"scale 0.0039, zero point -128, the kernel prescribes \(0.00390625, -128\)"),
    ("softmax", {"zero_point": (-127,)}, "zero point -127, the kernel prescribes"),
    ("abs", {"zero_point": (-127,)}, "zero point -127, its reader needs -128"),
]


def refused(b: Builder) -> Graph:
    tokens = b.tokens(b.conv(b.input))
    squashed = b.add("SOFTMAX", b.add("BATCH_MATMUL", tokens, tokens, adj_y=True), beta=1.0)
    return graph_of(b, b.add("BATCH_MATMUL", squashed, tokens), b.add("RSQRT", b.add("ABS", tokens)))


@pytest.mark.parametrize(("start", "change", "words"), BAD)
def test_a_tensor_that_tflite_does_not_take_is_named(made: Builder, start: str, change: dict, words: str) -> None:
    graph = refused(made)
    plan = plan_of(graph)
    check_plan(graph, plan)
    name = next(n for n in plan.tensors if n.startswith(start))
    changed = replace(plan.tensors[name], **change)
    with pytest.raises(PlanError, match=words) as found:
        check_plan(graph, replace(plan, tensors={**plan.tensors, name: changed}))
    assert "problems: " in str(found.value)


def test_what_the_plan_lacks_and_weights_that_do_not_fit_are_named(made: Builder) -> None:
    graph = refused(made)
    plan = plan_of(graph)
    weight = weights(graph)[0][1].name
    quant = plan.tensors[weight]
    ones = (0,) * 6
    for new, words in [
        (replace(quant, zero_point=(0, 0, 3, 0, 0, 0)), "weight zero point is 3, int8 weights need 0"),
        (replace(quant, axis=3), "6 scales on axis 3, got to be 6 on axis 0"),
        (replace(quant, scale=quant.scale[:5], zero_point=ones[:5]), "5 scales on axis 0, got to be 6"),
    ]:
        with pytest.raises(PlanError, match=words):
            check_plan(graph, replace(plan, tensors={**plan.tensors, weight: new}))
    for name in (weight, graph.tensors[graph.outputs[0]].name):
        with pytest.raises(PlanError, match=f"1 problems: '{name}': missing from the plan"):
            check_plan(graph, replace(plan, tensors={k: v for k, v in plan.tensors.items() if k != name}))


@pytest.mark.parametrize(("profile", "advice"), [("integer", True), ("cpu", False)])
def test_ops_without_int8_kernel_are_refused_unless_they_are_float(made: Builder, profile: str, advice: bool) -> None:
    power = made.add("EXP", made.conv(made.input))
    graph = graph_of(made, power)
    plan = replace(plan_of(graph), profile=profile)
    with pytest.raises(PlanError, match="EXP.* has no int8 kernel that is right: rewrite it") as found:
        check_plan(graph, plan)
    assert ("or build with --profile cpu" in str(found.value)) == advice
    check_plan(edit.computed_in(graph, [power], FLOAT, FLOAT), plan)


# --- the typed graph ---


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
    a, b = made.add("ABS", x), made.add("ABS", made.add("RELU", x))
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
    assert cost == pytest.approx(max(wide - narrow + latency.ms(Work("QUANTIZE int16>int8", 96)), 0.0))


@pytest.mark.parametrize(("positions", "is_long"), [(511, False), (512, True), (513, True)])
def test_a_softmax_is_long_where_equal_weights_round_to_nothing(made: Builder, positions: int, is_long: bool) -> None:
    """1 / 512 is half a step of 1 / 256."""
    x = made.reshape(made.conv(made.input, positions), 16, positions)
    graph = graph_of(made, made.add("SOFTMAX", x, beta=1.0))
    assert is_long_softmax(graph, graph.nodes[-1]) == is_long
    assert not is_long_softmax(graph, graph.nodes[0])
