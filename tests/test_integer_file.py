"""The integer file holds exactly the plan, and the interpreter computes what the simulation computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit import affine
from qhyvit.errors import PlanError
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.contracts import check_plan, groups, weights
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.lowering.profiles import placed
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan, Scheme
from qhyvit.sim.run import Executor
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.against_float import FloatFile, against_float
from qhyvit.verify.census import census
from qhyvit.verify.probe import every_tensor, make_interpreter
from qhyvit.verify.report import first_difference, verify
from tests._graphs import Builder
from tests._targets import CPU

QUICK = {"rounds": 1, "learn": 0, "int16_ms": 0}


@pytest.fixture(scope="module")
def solved(small, inputs):
    chosen = method("qhyvit")
    solution = chosen.search(Problem(small.graph, inputs[:4]), {**chosen.defaults, **QUICK})
    plan = QuantPlan(solution.tensors, "qhyvit")
    return solution.shipped, plan, quantized_file(solution.shipped, plan)


@pytest.fixture(scope="module")
def codes(solved, inputs):
    graph, plan, _ = solved
    q = plan.tensors[graph.tensors[graph.inputs[0]].name]
    scale, zero = q.scale[0], q.zero_point[0]
    return [affine.quantize(x[None].numpy(), scale, zero, affine.grid()).astype(np.int8) for x in inputs]


def test_no_float_tensor_and_integer_ends(solved):
    found = census(solved[2])
    assert found.float_tensors == ()
    assert found.int16_tensors == ()
    assert {dtype for _, dtype in found.ops} == {"INT8"}
    assert found.partitions > 0


def test_scales_zero_points_and_weight_codes_are_exactly_the_plans(solved):
    graph, plan, data = solved
    model = flatbuffer.load_model(data)
    by_name = {flatbuffer.text(t.name): t for t in model.subgraphs[0].tensors}
    for tensor in graph.activations():
        quant, raw = plan.tensors[tensor.name], by_name[tensor.name].quantization
        assert (float(raw.scale[0]), int(raw.zeroPoint[0])) == (quant.scale[0], quant.zero_point[0]), tensor.name
    for _, tensor, axis in weights(graph):
        quant, raw = plan.tensors[tensor.name], by_name[tensor.name]
        assert [float(s) for s in raw.quantization.scale] == list(quant.scale), tensor.name
        expected = affine.quantize(tensor.data, quant.scale, quant.zero_point, affine.grid(narrow=True), axis)
        stored = np.frombuffer(bytes(_bytes(model, data, raw)), np.int8).reshape(tensor.shape)
        assert np.array_equal(stored, expected), tensor.name


def _bytes(model, data, tensor):
    buffer = model.buffers[tensor.buffer]
    if buffer.data is not None and len(buffer.data):
        return bytearray(buffer.data)
    return data[buffer.offset : buffer.offset + buffer.size]


def test_verification_passes_and_compares_every_op(solved, inputs, codes):
    graph, plan, data = solved
    report = verify(graph, lower(graph, plan), data, inputs, codes)
    # random weights leave many near-ties between classes: decisions are checked on trained weights elsewhere
    ops = {c.name: c.passed for c in report.checks if "decide" not in c.name}
    assert all(ops.values()), report.checks
    clamps = {"QUANTIZE"}  # right operands leave out -128
    assert set(report.agreements["litert"].ops) == {n.op for n in graph.nodes} | clamps
    worst = {o.op: o.worst for o in report.agreements["litert"].ops.values()}
    assert not any(worst.values()), worst


@pytest.mark.parametrize(("error", "passed"), [(4e-4, True), (6e-4, False), (float("nan"), False)])
def test_what_the_export_measured_is_held_to_its_limit(small_v1, inputs, error, passed):
    """A work directory may hold facts that no export of ours has written."""
    outputs = Executor(small_v1.graph).rows(inputs[:2]).numpy()

    def check(**facts):
        reference = FloatFile(small_v1.tflite, facts, task("classify"), Layout.of_facts(small_v1.facts["outputs"]))
        checks = against_float(reference, small_v1.graph, inputs[:2], outputs)[1]
        return [c for c in checks if c.name.startswith("exported")]

    (found,) = check(float_error=error, float_limit=5e-4)
    assert (found.passed, "limit 5e-04" in found.detail) == (passed, True)
    assert check(float_error=error) == []  # of an export that recorded no limit nothing is said to have passed


def test_verification_finds_a_file_that_is_not_the_plans(solved, inputs, codes):
    graph, plan, data = solved
    conv = next(n for n in graph.nodes if n.op == "CONV_2D")
    name = graph.tensors[conv.outputs[0]].name
    wrong = replace(plan.tensors[name], scale=(plan.tensors[name].scale[0] * 1.2,))
    other = replace(plan, tensors={**plan.tensors, name: wrong})
    report = verify(graph, lower(graph, other), data, inputs[:2], codes[:2])
    assert not report.passed
    assert any("CONV_2D" in c.name and not c.passed for c in report.checks)


def test_a_float_file_fails_the_census(small, solved, inputs, codes):
    found = census(serialize(small.graph))
    assert found.float_tensors


def broken(plan, name, **changes):
    return replace(plan, tensors={**plan.tensors, name: replace(plan.tensors[name], **changes)})


def test_plans_that_cannot_be_expressed_are_refused_with_the_tensors_name(solved):
    graph, plan, _ = solved
    _, weight, _ = weights(graph)[0]
    ones = (1,) * weight.shape[weights(graph)[0][2]]
    with pytest.raises(PlanError, match="weight zero point is 1"):
        check_plan(graph, broken(plan, weight.name, zero_point=ones))
    softmax = graph.tensors[next(n for n in graph.nodes if n.op == "SOFTMAX").outputs[0]]
    with pytest.raises(PlanError, match="prescribes"):
        check_plan(graph, broken(plan, softmax.name, scale=(0.5,)))
    right = graph.tensors[next(n for n in graph.nodes if n.op == "BATCH_MATMUL").inputs[1]]
    with pytest.raises(PlanError, match="needs 0"):
        check_plan(graph, broken(plan, right.name, zero_point=(3,)))
    conv = graph.tensors[next(n for n in graph.nodes if n.op == "CONV_2D").outputs[0]]
    channels = conv.shape[-1]
    with pytest.raises(PlanError, match="channel-wise"):
        check_plan(graph, broken(plan, conv.name, scale=(1.0,) * channels, zero_point=(0,) * channels, axis=3))
    missing = {k: v for k, v in plan.tensors.items() if k != conv.name}
    with pytest.raises(PlanError, match="missing from the plan"):
        check_plan(graph, replace(plan, tensors=missing))


def test_right_operands_are_symmetric_in_the_plan(solved):
    graph, plan, _ = solved
    for node in graph.nodes:
        if node.op == "BATCH_MATMUL":
            quant = plan.tensors[graph.tensors[node.inputs[1]].name]
            assert quant.zero_point == (0,)
            assert quant.choice.scheme == Scheme.SYMMETRIC
            assert quant.limits == (-127, 127)


def test_right_operands_never_hold_the_lowest_code_however_far_they_are_clipped(small, inputs, codes):
    """Cortex-A53 and A72 have kernels that add two products in 16 bits: -128 * -128 twice is one too much."""
    solution = method("minmax").search(Problem(small.graph, inputs[:4]))
    graph, tensors = solution.graph, dict(solution.tensors)
    right = {graph.tensors[n.inputs[1]].name for n in graph.nodes if n.op == "BATCH_MATMUL"}
    for group in groups(graph):
        names = [graph.tensors[t].name for t in group.members]
        if group.symmetric:  # clipped to a tenth: many codes at both ends
            quant = tensors[names[0]]
            tensors |= dict.fromkeys(names, replace(quant, scale=(float(np.float32(quant.scale[0] / 10)),)))
    plan = QuantPlan(tensors, "test")
    data = quantized_file(graph, plan)
    interpreter = make_interpreter(data, all_tensors=True)
    seen = set()
    for found in every_tensor(interpreter, codes[:2]):
        for name in right:
            lowest, highest = int(found[name].min()), int(found[name].max())
            assert lowest >= -127
            seen |= {lowest, highest}
    assert {-127, 127} <= seen
    report = verify(graph, lower(graph, plan), data, inputs[:2], codes[:2])
    assert all(c.passed for c in report.checks if "decide" not in c.name), report.checks


def test_fake_quantization_rounds_as_the_exact_arithmetic(solved):
    from qhyvit.plan import TensorQuant
    from qhyvit.sim.fakequant import fake_quantize

    quant = TensorQuant((0.037,), (-5,))
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 3
    codes = affine.quantize(x, quant.scale[0], quant.zero_point[0], affine.grid())
    fake = fake_quantize(x, quant).double().numpy() / quant.scale[0] + quant.zero_point[0]
    assert (np.abs(np.rint(fake) - codes) > 0).mean() < 1e-3  # ties in float32 only


@pytest.mark.parametrize("bits", [4, 6])
def test_smaller_grids_are_kept_by_the_file(small_v1, inputs, bits):
    solution = method("minmax").search(Problem(small_v1.graph, inputs[:4], bits=bits), {"observer": "percentile_99.9"})
    graph, plan = solution.graph, QuantPlan(solution.tensors, "minmax")
    data = quantized_file(graph, plan)
    q = plan.tensors[graph.tensors[graph.inputs[0]].name]
    low, high = q.limits
    grid = affine.Grid(low, high)
    codes = [affine.quantize(x[None].numpy(), q.scale[0], q.zero_point[0], grid).astype(np.int8) for x in inputs[4:6]]
    report = verify(graph, lower(graph, plan), data, inputs[4:6], codes)
    ops = {c.name: c.detail for c in report.checks if "decide" not in c.name and not c.passed}
    assert not ops
    seen = 0
    for found in every_tensor(make_interpreter(data, "litert", all_tensors=True), codes):
        for name, values in found.items():
            if name in plan.tensors and plan.tensors[name].bits == bits:
                low, high = plan.tensors[name].limits
                assert low <= values.min(), name
                assert values.max() <= high, name
                seen += values.max() == high
    assert seen > 10  # the clamp is at work


def test_the_cpu_profile_has_float_islands_and_nothing_else_in_float(small, inputs, enlarged):
    graph = placed(small.graph, replace(CPU, times=enlarged))
    solution = method("minmax").search(Problem(graph, inputs[:4]), {"observer": "minmax"})
    graph, plan = solution.graph, QuantPlan(solution.tensors, "minmax", profile="cpu")
    data = quantized_file(graph, plan)
    q = plan.tensors[graph.tensors[graph.inputs[0]].name]
    codes = [
        affine.quantize(x[None].numpy(), q.scale[0], q.zero_point[0], affine.grid()).astype(np.int8) for x in inputs
    ]
    report = verify(graph, lower(graph, plan), data, inputs[:4], codes[:4])
    failed = {c.name: c.detail for c in report.checks if "decide" not in c.name and not c.passed}
    assert not failed
    found = census(data)
    islands = {op for op, dtype in found.ops if dtype == "FLOAT32"}
    assert islands == {n.op for n in graph.nodes if not n.is_int8} | {"DEQUANTIZE"}
    assert islands >= {"SOFTMAX", "RSQRT", "ADD"}  # with the eps
    assert set(found.not_delegated) <= {"SOFTMAX"}  # roots run in XNNPACK now, and softmax but for the shortest rows


def test_a_softmax_in_float_has_a_range_of_its_own(small, enlarged):
    islands = placed(small.graph, replace(CPU, times=enlarged))
    fixed = {t for g in groups(small.graph) if g.fixed for t in g.members}
    free = {t for g in groups(islands) if g.fixed for t in g.members}
    outputs = {n.outputs[0] for n in islands.nodes if n.op == "SOFTMAX" and not n.is_int8}
    assert outputs
    assert outputs <= fixed
    assert not outputs & free


def test_a_layer_that_was_zero_on_all_images_does_not_keep_the_file_from_loading():
    weight = -np.ones((3, 4), np.float32)
    tensors = [
        Tensor(0, "x", (1, 5, 4), "FLOAT32"), Tensor(1, "w", (3, 4), "FLOAT32", weight),
        Tensor(2, "b", (3,), "FLOAT32", np.zeros(3, np.float32)), Tensor(3, "dead", (1, 5, 3), "FLOAT32"),
        Tensor(4, "flat", (1, 15), "FLOAT32"), Tensor(5, "shape", (2,), "INT32", np.array([1, 15], np.int32)),
    ]  # fmt: skip
    attrs = spec("FULLY_CONNECTED").attrs(keep_num_dims=True, fused_activation_function="RELU")
    nodes = (
        Node("FULLY_CONNECTED", attrs, (0, 1, 2), (3,)),
        Node("RESHAPE", spec("RESHAPE").attrs(), (3, 5), (4,)),
    )
    graph = Graph({t.id: t for t in tensors}, nodes, (0,), (4,))
    x = torch.rand(4, 5, 4) * 50
    solution = method("minmax").search(Problem(graph, x), {"observer": "minmax"})
    data = quantized_file(solution.shipped, QuantPlan(solution.tensors, "minmax"))
    found = next(every_tensor(make_interpreter(data, all_tensors=True), [np.full((1, 5, 4), 127, np.int8)]))
    assert census(data).partitions == 1
    assert set(found["flat"].ravel()) == {solution.tensors["flat"].zero_point[0]}


def with_tensor(graph, name, **changes):
    tensor = graph.by_name[name]
    return replace(graph, tensors={**graph.tensors, tensor.id: replace(tensor, **changes)})


def test_a_file_that_is_another_graph_than_planned_is_told_by_its_first_difference(solved):
    graph, plan, data = solved
    typed, file = lower(graph, plan).graph, read(data)
    assert first_difference(typed, file) is None
    layer = next(n for n in file.nodes if n.op == "CONV_2D")
    weight, out = (file.tensors[t] for t in (layer.inputs[1], layer.outputs[0]))
    bent = weight.data.copy()
    bent.flat[0] += 1
    grid = out.quantization
    moved = replace(grid, zero_point=grid.zero_point + 1)
    others = {
        "other values": with_tensor(file, weight.name, data=bent),
        "quantization": with_tensor(file, out.name, quantization=replace(grid, scale=(grid.scale[0] * 2,))),
        "another shape, type or": with_tensor(file, out.name, quantization=moved),
        "is not the planned": replace(file, nodes=(replace(file.nodes[0], op="TANH"), *file.nodes[1:])),
        "planned are": replace(file, nodes=file.nodes[1:]),
        "inputs and outputs": replace(file, outputs=layer.outputs),
    }
    for words, other in others.items():
        assert words in first_difference(typed, other)


@pytest.mark.parametrize("op", ["ADD", "SUB"])
def test_a_sum_that_a_relu6_cuts_off_has_codes_as_simulated(op):
    """Hard swish of large values: the builtin kernel wraps around where an operand's step is 256 of the sum's."""
    b = Builder(np.random.default_rng(2))
    x = b.conv(b.input, 8, 3)
    three = b.constant(1)
    cut = b.add(op, x, three, fused_activation_function="RELU6")
    graph = b.graph(b.linear(b.add("MUL", x, cut), 4))
    images = 3000 * torch.rand(4, *graph.tensors[graph.inputs[0]].shape[1:], generator=torch.Generator().manual_seed(0))
    minmax = method("minmax")
    solution = minmax.search(Problem(graph, images), minmax.defaults)
    plan = QuantPlan(solution.tensors, "minmax")
    source, out = (plan.tensors[graph.tensors[t].name].scale[0] for t in (x, cut))
    assert source > 6 / 255 * 256  # without the limit
    assert source / out < 256
    data, q = quantized_file(solution.shipped, plan), plan.tensors[graph.tensors[graph.inputs[0]].name]
    grid = affine.grid()
    codes = [affine.quantize(i[None].numpy(), q.scale[0], q.zero_point[0], grid).astype(np.int8) for i in images]
    report = verify(solution.graph, lower(solution.shipped, plan), data, images, codes)
    assert {o.op: o.worst for o in report.agreements["litert"].ops.values() if o.worst} == {}
    assert census(data).not_delegated == {}
