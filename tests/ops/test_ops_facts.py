"""The facts that each op states, against schema, quantizer and the int8 kernels."""

from __future__ import annotations

import itertools
import math
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from _cases import CASES
from _kernels import EXPORTED, Trial, trials
from _single_op import (
    Activation,
    Case,
    Quantized,
    build,
    camel,
    delegated,
    interpreter,
    layer_grid,
    quantize,
    run,
    schema_name,
)  # fmt: skip
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import OpResolverType

import qhyvit.ops
from qhyvit.errors import GraphError
from qhyvit.ops import all_ops, spec
from qhyvit.ops.fully_connected import FullyConnectedAttrs
from qhyvit.ops.gather import GatherAttrs
from qhyvit.ops.shared.spec import FREE, Copies, Fixed, Nonnegative, OpSpec, Tied, activate
from qhyvit.ops.shared.unary import same_shape
from qhyvit.ops.strided_slice import StridedSliceAttrs
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize

# Options that do not change what a float or a fully integer model computes.
IGNORED = {"potScaleInt16", "asymmetricQuantizeInputs", "quantizedBiasType", "quantSpec"}
# QUANTIZE and DEQUANTIZE join float and codes; a test of their own below.
JOINTS = {"QUANTIZE", "DEQUANTIZE"}
OPS = pytest.mark.parametrize("op", all_ops().values(), ids=lambda op: op.name)


def test_every_op_has_a_case() -> None:
    files = {p.stem.upper() for p in Path(qhyvit.ops.__file__).parent.glob("*.py") if not p.stem.startswith("_")}
    assert files == set(all_ops())
    assert files - {case.op for case in CASES} == JOINTS | {"CAST"}  # of codes alone: tests/test_targets.py


@OPS
def test_name_and_options_are_those_of_the_schema(op: OpSpec) -> None:
    assert hasattr(schema.BuiltinOperator, op.name)
    if not op.options:
        assert not fields(op.attrs)
        return
    assert hasattr(schema.BuiltinOptions, op.options)
    known = set(vars(getattr(schema, f"{op.options}T")()))
    named = {camel(f.name) for f in fields(op.attrs)}
    assert named <= known
    assert known - named <= IGNORED, "an option that changes the result is neither read nor refused"


@OPS
def test_attributes_are_frozen_and_know_their_equals(op: OpSpec) -> None:
    made = op.attrs()
    assert hash(made) == hash(op.attrs())
    assert made == op.attrs()
    for field in fields(made):
        with pytest.raises(FrozenInstanceError):
            setattr(made, field.name, getattr(made, field.name))


# a layer, the shapes that it reads, and what its kernel multiplies: for each output value, the terms of its sum
MACS = [
    ("FULLY_CONNECTED", [(3, 5), (4, 5)], (3, 4), 3 * 4 * 5),
    ("CONV_2D", [(1, 8, 6, 5), (7, 3, 2, 5)], (1, 8, 6, 7), 8 * 6 * 7 * 3 * 2 * 5),
    ("DEPTHWISE_CONV_2D", [(1, 8, 6, 5), (1, 3, 2, 10)], (1, 8, 6, 10), 8 * 6 * 10 * 3 * 2),
    ("TRANSPOSE_CONV", [(4,), (7, 3, 2, 5), (1, 4, 6, 5)], (1, 8, 12, 7), 4 * 6 * 5 * 7 * 3 * 2),
    ("BATCH_MATMUL", [(2, 3, 5), (2, 5, 4)], (2, 3, 4), 2 * 3 * 4 * 5),
]


@pytest.mark.parametrize(("name", "shapes", "out", "expected"), MACS)
def test_multiplications_are_counted(name: str, shapes, out, expected: int) -> None:
    assert spec(name).macs(shapes, out) == expected
    assert spec(name).factors == ((2, 1) if name == "TRANSPOSE_CONV" else (0, 1))


def test_every_op_that_sums_products_is_counted() -> None:
    named = {name for name, *_ in MACS}
    assert {op.name for op in all_ops().values() if op.macs is not None} == named
    assert {op.name for op in all_ops().values() if op.factors is not None} == named | {"MUL"}


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        (lambda: FullyConnectedAttrs(weights_format=1), "weights format 1"),
        (lambda: StridedSliceAttrs(ellipsis_mask=2), "ellipsis_mask"),
        (lambda: StridedSliceAttrs(new_axis_mask=1), "new_axis_mask"),
        (lambda: GatherAttrs(batch_dims=1), "batch_dims 1"),
        (lambda: spec("RESIZE_BILINEAR").attrs(align_corners=True, half_pixel_centers=True), "exclude each other"),
    ],
)
def test_unsupported_options_are_refused(attrs, message) -> None:
    with pytest.raises(GraphError, match=message):
        attrs()


def test_unknown_fused_activation_is_refused() -> None:
    with pytest.raises(GraphError, match="SIGN_BIT"):
        activate(torch.zeros(1), "SIGN_BIT")


@pytest.mark.parametrize("name", sorted(JOINTS))
def test_joints_pass_real_values_on_and_refuse_codes(name: str) -> None:
    op, x = spec(name), torch.randn(2, 1, 3)
    assert torch.equal(op.forward([x], op.attrs()), x)
    with pytest.raises(GraphError, match="integer codes"):
        op.forward([np.zeros(3, np.int8)], op.attrs())


def _natural(case: Case) -> Trial:
    """On the grids of its own values."""
    return next(trials(case, 0))


def _outside_xnnpack(case: Case) -> bool:
    """What XNNPACK refuses of ops that it takes otherwise: said in the docstring of each."""
    if case.op == "STRIDED_SLICE":
        return bool(case.options) or (case.operands[3] != 1).any()
    one_pixel = case.op == "MAX_POOL_2D" and case.attrs.filter_height == case.attrs.filter_width == 1
    return one_pixel or (case.op == "SLICE" and (case.operands[2] < 0).any())


@pytest.mark.parametrize("case", EXPORTED, ids=str)
def test_xnnpack_takes_the_op_where_the_facts_say_so(case: Case) -> None:
    taken = delegated(interpreter(_natural(case).file(), OpResolverType.BUILTIN))
    said = case.spec.delegate == "" and not _outside_xnnpack(case)
    assert taken == said, f"XNNPACK {'takes' if taken else 'refuses'} it: mend OpSpec.delegate"


@pytest.mark.parametrize("case", {c.op: c for c in CASES}.values(), ids=str)
def test_runtimes_know_the_version_that_an_op_gets_without_an_export(case: Case) -> None:
    graph = replace(read(build(case)), facts={})
    assert interpreter(serialize(graph), OpResolverType.BUILTIN).get_output_details()


# --- what an op does with values ---


def _with_values(case: Case, values: list[np.ndarray | None]) -> list[np.ndarray]:
    """The results where float operands hold ``values``, flat."""
    given = [o if x is None else torch.tensor(x).reshape(1, *o.shape)
             for o, x in zip(case.operands, values, strict=True)]  # fmt: skip
    found = case.spec.forward(given, case.attrs)
    return [y.numpy().ravel() for y in (found if isinstance(found, tuple) else (found,))]


def _floats(case: Case) -> list[int]:
    """How many values each float operand has, 0 for the others."""
    return [math.prod(o.shape) if isinstance(o, Activation) or (o is not None and o.dtype == np.float32) else 0
            for o in case.operands]  # fmt: skip


def _copies(case: Case) -> Copies | None:
    """What of its operands' values a case writes, found with values that all differ; None: it writes others."""
    starts = np.cumsum([0, *_floats(case)])

    def results(values: np.ndarray) -> list[np.ndarray]:
        return _with_values(case, [values[a:b] if b > a else None for a, b in itertools.pairwise(starts)])

    rng = np.random.default_rng(0)
    values, other = rng.normal(size=(2, starts[-1]))
    outputs, order = results(values), np.argsort(values)
    found = np.concatenate(outputs)
    places = order[np.searchsorted(values, found, sorter=order).clip(max=len(values) - 1)]
    if not np.array_equal(values[places], found) or not np.array_equal(other[places], np.concatenate(results(other))):
        return None
    each = np.bincount(places, minlength=len(values))
    if 0 in each or len(outputs) > 1 or np.count_nonzero(_floats(case)) > 1:
        return Copies.SOME
    return Copies.REPEATED if each.max() > 1 else Copies.ONCE


@OPS
def test_an_op_says_which_values_it_copies(op: OpSpec) -> None:
    found = {_copies(c) for c in CASES if c.op == op.name and c.spec.weight_input < 0}
    least = next((k for k in (None, Copies.SOME, Copies.REPEATED, Copies.ONCE) if k in found), None)
    assert op.copies is least, f"OpSpec.copies has to be {least!r}"


@pytest.mark.parametrize("case", [c for c in CASES if c.spec.nonnegative is not None], ids=str)
def test_results_are_not_negative_where_the_op_says_so(case: Case) -> None:
    rng, sizes = np.random.default_rng(0), _floats(case)
    everything = range(len(sizes))
    which = {Nonnegative.ALWAYS: [()], Nonnegative.OF_ALL: [everything], Nonnegative.OF_ANY: [(i,) for i in everything]}
    for positive in which[case.spec.nonnegative]:
        positive = everything if case.op in ("SQRT", "RSQRT") else positive  # of negative numbers there is none
        values = [rng.normal(size=n) if n else None for n in sizes]
        values = [abs(v) if v is not None and i in positive else v for i, v in enumerate(values)]
        lowest = min(y.min() for y in _with_values(case, values))
        assert lowest >= 0, f"a result of {lowest}: mend OpSpec.nonnegative"


def _is_plain(case: Case) -> bool:
    """Whether all operands are floats."""
    return all(_floats(case))


@OPS
def test_an_op_says_whether_a_scale_passes_through_it(op: OpSpec) -> None:
    rng, alike = np.random.default_rng(0), []
    is_elementwise = op.infer_shape is same_shape or op.pairwise
    for case in (c for c in CASES if c.op == op.name and is_elementwise and _is_plain(c)):
        values = [rng.normal(size=n) for n in _floats(case)]
        if case.op in ("SQRT", "RSQRT", "LOG"):
            values = [np.abs(x) for x in values]
        r = rng.uniform(0.1, 9, len(values[0])) if len(values) == 1 else 3.7
        (plain,), (scaled,) = _with_values(case, values), _with_values(case, [r * x for x in values])
        alike.append(np.allclose(scaled, r * plain))
    found = bool(alike) and all(alike)
    assert op.homogeneous == found, f"OpSpec.homogeneous has to be {found}"


@OPS
def test_pairwise_ops_broadcast_two_operands(op: OpSpec) -> None:
    cases = [c for c in CASES if c.op == op.name]
    if op.pairwise:
        assert {len(c.operands) for c in cases} == {2}
        assert {len(c.operands[0].shape) == len(c.operands[1].shape) for c in cases} == {True, False}


# --- ops without ``integer``: no int8 kernel is right ---


USELESS = {"EXP", "DIV"}  # there is a kernel, see below
UNCODED = [c for c in CASES if c.spec.integer is None and c.op not in USELESS]


@pytest.mark.parametrize("case", UNCODED, ids=str)
def test_without_int8_kernel_it_fails_or_is_wrong(case: Case) -> None:
    trial = _natural(case)
    try:
        found = run(interpreter(trial.file(), OpResolverType.BUILTIN), trial.fed)
    except RuntimeError as error:
        assert f"({case.op}) failed to" in str(error)  # noqa: PT017 - the other outcome is no exception
        return
    worst = max(np.abs(f - y).max() for f, y in zip(found, trial.rounded(), strict=True))
    assert worst > 2, "the int8 kernel seems right: give OpSpec.integer"


@OPS
def test_an_op_without_int8_kernel_says_why(op: OpSpec) -> None:
    assert op.integer or op.delegate or op.name in JOINTS, "OpSpec.delegate has to say why no int8 file has the op"


@pytest.mark.parametrize("case", [c for c in CASES if c.op == "EXP"], ids=str)
def test_int8_exp_loses_most_of_its_results(case: Case) -> None:
    """The reason why EXP counts as an op without int8 kernel: there is one, and it is as good as eight bits can be."""
    spread = Case("EXP", (Activation((1, 256), -6.0, 6.0),))
    trial = _natural(spread)
    (found,) = run(interpreter(trial.file(), OpResolverType.BUILTIN), trial.fed)
    results = trial.grids.outputs[0].values(found)
    exact = np.exp(trial.grids.operands[0].values(trial.fed[0]))
    assert np.mean(np.abs(results / exact - 1) > 0.5) > 0.3


def test_int8_div_makes_a_small_quotient_huge() -> None:
    """The reason why DIV counts as an op without int8 kernel; when this fails, a new runtime has mended it."""
    case = Case("DIV", (Activation((2,)), Activation((2,))))
    grids = Quantized((layer_grid(0.0, 1.0), layer_grid(0.0, 49.0)), (layer_grid(0.0, 1.0),))
    made = interpreter(build(case, grids), OpResolverType.BUILTIN)
    # 1/255 : 49 = 0.00008 and 200/255 : 49 = 0.016, in steps of 1/255: 0.02 and 4.1
    (found,) = run(made, [np.array([[-127, 72]], np.int8), np.array([[127, 127]], np.int8)])
    assert found.tolist() == [[127, -124]]


@pytest.mark.parametrize("case", [c for c in CASES if c.op == "BATCH_MATMUL"][:4], ids=str)
def test_right_operand_with_zero_point_is_refused_by_xnnpack(case: Case) -> None:
    grids = quantize(case, case.images(4))
    right = layer_grid(-3.0, 2.0)
    assert right.zero_point[0] != 0
    grids = replace(grids, operands=(grids.operands[0], right))
    assert not delegated(interpreter(build(case, grids), OpResolverType.BUILTIN))


def test_rsqrt_below_its_zero_point_is_an_error() -> None:
    case = Case("RSQRT", (Activation((4,)),))
    grids = Quantized((layer_grid(-1.0, 1.0),), (layer_grid(0.0, 4.0),))
    made = interpreter(build(case, grids), OpResolverType.BUILTIN)
    with pytest.raises(RuntimeError, match="positive"):
        run(made, [np.array([[-128, 0, 1, 2]], np.int8)])


def _of_the_tool() -> set[str]:
    """Ops that ai-edge-quantizer makes int8."""
    from ai_edge_quantizer import default_policy
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_NAME_TO_CODE

    found = set()
    for name, configs in default_policy.DEFAULT_CONFIG_CHECK_POLICY.items():
        if any(c.activation_tensor_config and c.activation_tensor_config.num_bits == 8 for c in configs):
            found.add(schema_name(TFL_OP_NAME_TO_CODE[name]) if name in TFL_OP_NAME_TO_CODE else name.value)
    return found


FIRST = {case.op: case for case in reversed(EXPORTED) if case.op in _of_the_tool()}


@pytest.mark.parametrize("case", FIRST.values(), ids=str)
def test_quantizer_keeps_the_contract(case: Case) -> None:
    """Every tensor gets a range of its own; the tool must tie and fix exactly what the op says."""
    from ai_edge_quantizer import quantizer, recipe

    graph = read(build(case))
    wish = {}
    for i, t in enumerate([*graph.inputs, *graph.nodes[0].outputs]):
        zero = case.spec.input_zero_point if t in graph.inputs else None
        low = 0.0 if zero == -128 else -1.0 - i
        wish[graph.tensors[t].name] = {"min": np.float64(low), "max": np.float64(2.0 + i)}
    tool = quantizer.Quantizer(bytearray(serialize(graph)), recipe.static_wi8_ai8())
    data = tool.quantize(wish, enable_progress_bar=False, enable_progress_report=False).quantized_model
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    names = [schema_name(c.builtinCode) for c in model.operatorCodes]
    node = next(o for o in model.subgraphs[0].operators if names[o.opcodeIndex] == case.op)

    def grid(t: int) -> tuple[float, int] | None:
        found = model.subgraphs[0].tensors[t].quantization
        return None if found is None or found.scale is None else (float(found.scale[0]), int(found.zeroPoint[0]))

    out = case.spec.out
    for t, source in zip(node.outputs, graph.nodes[0].outputs, strict=True):
        own = wish[graph.tensors[source].name]
        if isinstance(out, Fixed):
            assert grid(t) == (out.scale, out.zero_point)
        elif isinstance(out, Tied):
            tied = [i for i, o in enumerate(case.operands) if out.inputs is None or i in out.inputs]
            assert {grid(node.inputs[i]) for i in tied} == {grid(t)}
        else:
            assert out == FREE
            assert grid(t) is not None
            assert grid(t)[0] == pytest.approx((own["max"] - own["min"]) / 255, rel=1e-6)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_reader_fills_the_attributes(case: Case) -> None:
    assert read(build(case)).nodes[0].attrs == case.attrs
