"""The target edgetpu-rules: zero points of finished files, and each published rule on either side of its limit."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from qhyvit import cli
from qhyvit.errors import InputError, PlanError
from qhyvit.graph.ir import Graph, Quantization, Tensor
from qhyvit.lowering.contracts import check_plan
from qhyvit.lowering.lower import lower
from qhyvit.lowering.profiles import placed
from qhyvit.methods import all_methods
from qhyvit.methods.shared.problem import Problem, Solution
from qhyvit.methods.shared.state import State
from qhyvit.passes import prepared
from qhyvit.plan import QuantPlan
from qhyvit.report.gather import gather
from qhyvit.report.page import render
from qhyvit.report.request import Request
from qhyvit.store import Piece
from qhyvit.targets import target
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.agree import op_by_op
from qhyvit.verify.decide import HERE
from qhyvit.verify.rules import ByRules, by_rules
from qhyvit_device.info import describe
from tests import _tiny
from tests._codes import input_codes
from tests._graphs import Builder
from tests._layer_graphs import LAYERS
from tests._layer_graphs import graph_of as layer_graph
from tests._plans import graph_of

EDGETPU = target("edgetpu-rules")
IMAGES = torch.rand(4, 8, 8, 3, generator=torch.Generator().manual_seed(0))
SMALL = {"rounds": 1, "learn": 1, "steps": 2, "search_images": 3}


def solved(kind: str, name: str) -> Solution:
    chosen = all_methods()[name]
    options = {**chosen.defaults, **{k: v for k, v in SMALL.items() if k in chosen.defaults}, "fast_softmax": False}
    graph = placed(prepared(layer_graph(kind), EDGETPU), EDGETPU)
    return chosen.search(Problem(graph, IMAGES, target=EDGETPU), options)


def zero_points(data: bytes) -> dict[str, tuple[str, int]]:
    """(op that writes it, zero point) of every int8 activation, as the interpreter's own tables have them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    made = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    made.allocate_tensors()
    held = {t["index"]: t for t in made.get_tensor_details()}
    writer = {int(t): op["op_name"] for op in made._get_ops_details() for t in op["outputs"]}
    writer |= {t["index"]: "input" for t in made.get_input_details()}
    return {
        held[t]["name"]: (op, int(held[t]["quantization_parameters"]["zero_points"][0]))
        for t, op in writer.items() if held[t]["dtype"] == np.int8
    }  # fmt: skip


def ran(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, words)])
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def built_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network's bundle for this target, with its work directory."""
    folder = tmp_path_factory.mktemp("edgetpu")
    _tiny.pictures(folder / "train", 12)
    ran("build", "--model-py", f"{_tiny.__file__}:make", "--images", folder / "train", "--count", 8,
        "--method", "minmax", "--min-agreement", 0, "--target", "edgetpu-rules", "--out", folder / "B")  # fmt: skip
    return folder


@pytest.mark.parametrize("kind", sorted(LAYERS))
@pytest.mark.parametrize("name", ["minmax", "qhyvit"])
def test_zero_points_are_0_and_the_file_computes_what_was_simulated(kind: str, name: str) -> None:
    solution = solved(kind, name)
    lowered = lower(solution.shipped, QuantPlan(solution.tensors, name, target=EDGETPU.called))
    data = serialize(lowered.graph)
    for tensor, (op, zero) in zero_points(data).items():
        if tensor.endswith(".unclamped"):  # of a right operand, which leaves out the code -128
            assert zero == -1
        elif zero:
            # what these kernels prescribe, or copies of it (softmax, sigmoid), or what a reciprocal root reads
            assert zero == -128, (tensor, op)
            assert kind_of_prescribed(lowered.graph, tensor), (tensor, op)
    found = op_by_op(
        solution.graph, lowered, data, IMAGES, input_codes(solution, IMAGES, "0.image"), HERE
    )
    assert not found.missing
    assert all(row.worst == 0 for row in found.ops.values())


def kind_of_prescribed(graph: Graph, name: str) -> bool:
    """Whether a sigmoid or softmax wrote it, behind copies, or a reciprocal root reads it."""
    tensor = graph.by_name[name].id
    if any(n.op == "RSQRT" for n in graph.users(tensor)):
        return True
    made = graph.producer(tensor)
    while made is not None and made.op in ("RESHAPE", "TRANSPOSE", "SPLIT", "SLICE"):
        made = graph.producer(next(t for t in made.inputs if not graph.tensors[t].is_constant))
    return made is not None and made.op in ("LOGISTIC", "SOFTMAX")


def test_a_kept_state_still_has_zero_points_of_the_target() -> None:
    graph = placed(layer_graph(min(LAYERS)), EDGETPU)
    assert graph.centred
    found = State.unpack(Piece(*State(graph, {}).pack()))
    assert found.graph.centred
    assert not placed(graph, target()).centred


def test_a_plan_with_another_zero_point_is_refused_by_name() -> None:
    b = Builder(np.random.default_rng(0))
    graph = placed(graph_of(b, b.linear(b.input, 4)), EDGETPU)
    x = torch.randn(3, 4, 4, 3, generator=torch.Generator().manual_seed(1))
    minmax = all_methods()["minmax"]
    solution = minmax.search(Problem(graph, x, target=EDGETPU), minmax.defaults)
    name = graph.tensors[b.input].name
    wrong = {**solution.tensors, name: replace(solution.tensors[name], zero_point=(3,))}
    with pytest.raises(PlanError, match=rf"{name}.*zero point 3, the target takes 0 alone"):
        check_plan(graph, QuantPlan(wrong, "minmax", target=EDGETPU.called))


# --- the rules, each on a typed graph made by hand ---


def census(b: Builder, *outputs: int) -> ByRules:
    """The rules over a file with all activations in int8; weights and operands get one scale."""

    def typed(t: Tensor) -> Tensor:
        if t.dtype != "FLOAT32":
            return t
        data = None if t.data is None else np.clip(np.rint(t.data * 32), -127, 127).astype(np.int8)
        return replace(t, dtype="INT8", data=data, quantization=Quantization((1 / 32,)))

    graph = graph_of(b, *outputs)
    return by_rules(serialize(replace(graph, tensors={k: typed(t) for k, t in graph.tensors.items()})), EDGETPU)


def reason(b: Builder, out: int) -> str:
    """Why the last op is not mapped; "" where it is."""
    name = b.tensors[out].name
    return next((why for _, tensor, why in census(b, out).refused if tensor == name), "")


def pads(b: Builder, axis: int) -> int:
    """One row of zeros behind the others along an axis."""
    data = np.zeros((4, 2), np.int32)
    data[axis, 1] = 1
    return b.tensor("paddings", data.shape, "INT32", data)


def on_wide(b: Builder, channels: int) -> int:
    return b.conv(b.input, channels)


CASES = [
    # what the table says of each op, on either side of its limit
    ("add", lambda b: b.add("ADD", b.input, b.input), ""),
    ("not listed", lambda b: b.add("ABS", b.input), "not among the supported operations"),
    ("2 images", lambda b: b.add("RELU", b.reshape(b.input, 2, 2, 4, 3)), "more than three dimensions"),
    ("leading ones", lambda b: b.add("RELU", b.reshape(b.input, 1, 1, 4, 4, 3)), ""),
    ("pool", lambda b: b.add("MAX_POOL_2D", b.input, filter_height=2, filter_width=2), ""),
    ("fused pool", lambda b: b.add("MAX_POOL_2D", b.input, filter_height=2, filter_width=2,
                                   fused_activation_function="RELU6"), "a fused activation"),
    ("dilated", lambda b: b.conv(b.input, 4, 3, dilation_h_factor=2, dilation_w_factor=2), ""),
    ("two dilations", lambda b: b.conv(b.input, 4, 3, dilation_h_factor=2), "two dilations"),
    ("tokens", lambda b: b.linear(b.tokens(b.input), 4), "the output has more than one dimension"),
    ("one token", lambda b: b.linear(b.reshape(b.input, 1, 48), 4), ""),
    ("mean of a map", lambda b: b.add("MEAN", b.input, b.integers(1, 2), keep_dims=True), ""),
    ("mean of 3 channels", lambda b: b.add("MEAN", b.input, b.integers(3), keep_dims=True), "no multiple of 4"),
    ("mean of 8 channels", lambda b: b.add("MEAN", on_wide(b, 8), b.integers(3), keep_dims=True), ""),
    ("mean of images", lambda b: b.add("MEAN", b.input, b.integers(0), keep_dims=True), "over the batch dimension"),
    ("mean of rows", lambda b: b.add("MEAN", b.reshape(b.input, 16, 3), b.integers(0)), ""),
    ("maximum of a map", lambda b: b.add("REDUCE_MAX", b.input, b.integers(1)), ""),
    ("maximum of images", lambda b: b.add("REDUCE_MAX", b.input, b.integers(0)), "over the batch dimension"),
    ("softmax", lambda b: b.add("SOFTMAX", b.reshape(b.input, 1, 48)), ""),
    ("16,000", lambda b: b.add("SOFTMAX", b.reshape(on_wide(b, 1000), 1, 16000)), ""),
    ("16,016", lambda b: b.add("SOFTMAX", b.reshape(on_wide(b, 1001), 1, 16016)), "more than 16,000 elements"),
    ("rows", lambda b: b.add("SOFTMAX", b.tokens(b.input)), "more than one row"),
    ("slice", lambda b: b.add("STRIDED_SLICE", b.input, b.integers(0, 1, 1, 0), b.integers(1, 3, 3, 3),
                              b.integers(1, 1, 1, 1)), ""),
    ("far slice", lambda b: b.add("STRIDED_SLICE", b.input, b.integers(0, 0, 0, 0), b.integers(1, 4, 4, 3),
                                  b.integers(1, 2, 2, 1)), "strides other than 1"),
    ("padding", lambda b: b.add("PAD", b.input, pads(b, 1)), ""),
    ("more images", lambda b: b.add("PAD", b.input, pads(b, 0)), "more than three dimensions"),
    ("pack", lambda b: b.add("PACK", *[b.reshape(b.input, 16, 3)] * 2, values_count=2, axis=1), ""),
    ("pack maps", lambda b: b.add("PACK", *[b.reshape(b.input, 4, 4, 3)] * 2, values_count=2), "more than three"),
    ("slopes", lambda b: b.add("PRELU", b.input, b.constant(1, 1, 3)), ""),
    ("a slope each", lambda b: b.add("PRELU", b.input, b.constant(4, 4, 3)), "slopes have more than one dimension"),
    ("product", lambda b: b.add("BATCH_MATMUL", b.tokens(b.input), b.tokens(b.input), adj_y=True),
     "not among the supported operations"),
    ("beside a constant", lambda b: b.add("CONCATENATION", b.input, b.constant(1, 4, 4, 3), axis=3),
     "a constant operand that is no padding"),
    ("beside another", lambda b: b.add("CONCATENATION", b.input, b.input, axis=3), ""),
    ("row not found", lambda b: b.add("SQUARED_DIFFERENCE", b.input, b.input), "its row of the rules was not found"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_rule_on_either_side_of_its_limit(make, expected: str) -> None:
    b = Builder(np.random.default_rng(0))
    found = reason(b, make(b))
    assert (expected in found) if expected else not found


def test_what_could_be_mapped_is_counted_and_the_first_part_ends_where_an_op_could_not() -> None:
    b = Builder(np.random.default_rng(0))
    first = b.add("RELU", b.input)
    left = b.add("RELU", b.add("ABS", first))  # the second could be mapped, but reads what the processor writes
    right = b.add("TANH", first)
    found = census(b, b.add("ADD", left, right))
    assert (found.operators, found.mapped, found.first_part) == (5, 4, 2)
    assert [op for op, _, _ in found.refused] == ["ABS"]
    assert "4 of 5 operators could be mapped, 2 of them ahead" in found.said
    assert "ABS 1: not among the supported operations" in found.said
    assert found.source in str(found.to_json())


def test_an_activation_of_16_bits_is_left_to_the_processor() -> None:
    b = Builder(np.random.default_rng(0))
    out = b.add("ADD", b.input, b.input)
    graph = graph_of(b, out)
    wide = {k: replace(t, dtype="INT16", quantization=Quantization((1.0,), bits=16)) for k, t in graph.tensors.items()}
    found = by_rules(serialize(replace(graph, tensors=wide)), EDGETPU)
    assert found.refused == (("ADD", b.tensors[out].name, "not in 8 bits"),)


def test_a_target_without_rules_has_no_such_census() -> None:
    with pytest.raises(InputError, match="no rules are known of the target litert"):
        by_rules(b"", target())


@pytest.mark.parametrize("of", ["now", "before"])
def test_a_census_informs_in_all_that_a_build_shows(built_folder, tmp_path, capsys, of) -> None:
    """It is no check: a verdict and a page call nothing passed that cannot fail; verdicts of before still load."""
    shutil.copytree(built_folder, tmp_path / "p")
    bundle, path = tmp_path / "p" / "B", tmp_path / "p" / "B.work" / "verify.json"
    verdict = json.loads(path.read_text())
    if of == "before":
        verdict["checks"] += [{**note, "passed": True} for note in verdict.pop("informs")]
        path.write_text(json.dumps(verdict))
    words = "passed" if of == "before" else "info"
    ran("verify", "--work", bundle.with_name("B.work"), "--images", tmp_path / "p" / "train", "--min-agreement", 0)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "could be mapped" in line]
    assert line.startswith(f"{words:7s} by the published rules of the Edge TPU compiler, which was not run: ")
    page = render(gather(Request(bundle)))
    assert re.search(rf"<b[^>]*>{words}</b>\s*by the published rules of the Edge TPU compiler", page)
    assert "target" in describe(bundle)


def test_a_verdict_tells_checks_and_census_apart(built_folder) -> None:
    verdict = json.loads((built_folder / "B.work" / "verify.json").read_text())
    assert [set(note) for note in verdict["informs"]] == [{"name", "detail"}]
    assert not any("rules" in check["name"] for check in verdict["checks"])
