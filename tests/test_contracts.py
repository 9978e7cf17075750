"""Constants on their grids, tensors that share a scale, and plans that TFLite cannot express, by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qhyvit.errors import PlanError
from qhyvit.graph import edit
from qhyvit.graph.ir import FLOAT, Graph
from qhyvit.lowering.constants import constant_codes, constants_on_grid_of, on_grid
from qhyvit.lowering.contracts import check_plan, groups, operand_positions, quantized_operands, weights
from qhyvit.plan import Codes, TensorQuant
from tests._graphs import Builder
from tests._plans import graph_of, plan_of


@pytest.fixture
def made() -> Builder:
    return Builder(np.random.default_rng(0))


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
    with pytest.raises(PlanError, match=r"EXP.* has no int8 kernel that is right: rewrite it") as found:
        check_plan(graph, plan)
    assert ("or build with --no-integer" in str(found.value)) == advice
    check_plan(edit.computed_in(graph, [power], FLOAT, FLOAT), plan)
