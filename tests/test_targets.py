"""Targets: what is built for one holds nothing that it lacks, and computes what its own tools compute."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit import affine
from qhyvit.errors import InputError, PlanError, UsageError
from qhyvit.graph.ir import Graph
from qhyvit.latency.profile import default_profile
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.lowering.profiles import placed
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Kernel, Quants
from qhyvit.passes import prepared
from qhyvit.passes.flat_means import PASS as FLAT_MEANS
from qhyvit.passes.short_products import PASS as SHORT_PRODUCTS
from qhyvit.passes.short_strides import PASS as SHORT_STRIDES
from qhyvit.passes.short_transposes import PASS as SHORT_TRANSPOSES
from qhyvit.passes.sums_as_means import PASS as SUMS
from qhyvit.plan import QuantPlan
from qhyvit.sim.integer import IntegerExecutor
from qhyvit.sim.run import Executor
from qhyvit.stages.on_target import on_target
from qhyvit.targets import Target, all_targets, target
from qhyvit.tflite.read import read
from qhyvit.verify.micro import run_micro
from qhyvit.verify.probe import outputs, tensors
from qhyvit.work import Work
from tests._graphs import Builder, random_graph
from tests._plans import graph_of

TARGETS = pytest.mark.parametrize("name", sorted(all_targets()))
FLAT = [((4, 4, 3), (2,)), ((1, 1, 48), (3,)), ((2, 8, 3), (2, 3)), ((16, 3), (2,))]


def with_gelu() -> Graph:
    b = Builder(np.random.default_rng(3))
    return graph_of(b, b.linear(b.add("GELU", b.linear(b.input, 8)), 3))


FORMS = {"norm": lambda: random_graph(["conv", "norm"], seed=3), "gelu": with_gelu,
         "softmax": lambda: random_graph(["softmax attention", "linear"], seed=3)}  # fmt: skip


def image(graph: Graph) -> torch.Tensor:
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))


def built(graph: Graph, found: Target) -> tuple[Graph, bytes, list[np.ndarray]]:
    """The typed graph, its file and input codes, calibrated by minimum and maximum."""
    images = image(graph)
    problem = Problem(placed(prepared(graph, found), found), images, target=found)
    solution = method("minmax").search(problem, {**method("minmax").defaults, "fast_gelu": False})
    plan = QuantPlan(solution.tensors, "minmax", profile=found.profile, target=found.called, int16=solution.int16)
    typed = lower(solution.shipped, plan).graph
    entry = typed.tensors[typed.inputs[0]].quantization
    codes = [
        affine.quantize(x[None].numpy(), entry.scale[0], entry.zero_point, affine.grid()).astype(np.int8)
        for x in images
    ]
    return typed, quantized_file(solution.shipped, plan), codes


@TARGETS
@pytest.mark.parametrize("form", FORMS)
def test_a_file_has_nothing_that_its_target_lacks(name: str, form: str) -> None:
    found = target(name)
    typed, data, codes = built(FORMS[form](), found)
    here = [n.op for n in typed.nodes]
    assert not set(here) & (found.lacks | found.tables)
    if not found.int16:
        assert all(t.dtype != "INT16" for t in typed.tensors.values())
    simulated = np.stack([IntegerExecutor(typed, Kernel.X86).run(x)[typed.outputs[0]].ravel() for x in codes])
    assert np.abs(simulated - outputs(data, codes)).max() <= 1
    if found.kernels is None:
        return
    pytest.importorskip("tflite_micro", reason="needs qhyvit[tflm]")
    executor = IntegerExecutor(typed, found.kernels)
    known = {t.name: t.id for t in typed.activations()}
    for x, held in zip(codes, tensors(data, codes, "tflm"), strict=True):
        simulated = executor.run(x, list(known.values()))
        assert set(known) <= set(held)
        assert all(np.array_equal(simulated[t].ravel(), held[n].ravel()) for n, t in known.items())


def test_names_of_accelerators_and_of_files_are_targets(tmp_path):
    assert target("ethos-u65-512").accelerator == "ethos-u65-512"
    assert target("ethos-u65").called == "ethos-u65-256"
    path = tmp_path / "pi.json"
    path.write_text(replace(default_profile(), name="Pi").to_json())
    assert target(str(path), integer=False).latency.name == "Pi"
    with pytest.raises(InputError, match="does not exist"):
        target(str(tmp_path / "none.json")).latency  # noqa: B018
    for wrong, words in (("ethos-u65-500", "unknown target"), ("pi", "unknown target")):
        with pytest.raises(UsageError, match=words):
            target(wrong)
    with pytest.raises(UsageError, match="tflm computes no float"):
        target("tflm", integer=False)


def test_a_target_without_its_tools_is_refused_with_the_remedy():
    needy = replace(target("tflm"), needs=(("no_such_module.inside", "tflm"),))
    with pytest.raises(InputError, match=r"--target tflm needs no_such_module.*pip install 'qhyvit\[tflm\]'"):
        needy.check_tools()


def test_an_op_that_a_target_lacks_is_named():
    b = Builder(np.random.default_rng(0))
    graph = graph_of(b, b.add("SUM", b.linear(b.input, 4), b.integers(3), keep_dims=True))
    solution = method("minmax").search(Problem(graph, image(graph)), method("minmax").defaults)
    with pytest.raises(PlanError, match=r"SUM .* cannot run on the target tflm: choose another target"):
        lower(solution.shipped, QuantPlan(solution.tensors, "minmax", target="tflm"))


# --- tables ---


@pytest.mark.parametrize("op", ["GELU", "LOG", "SQRT", "RELU6"])
def test_a_table_has_the_ops_own_results_for_every_code(op: str) -> None:
    b = Builder(np.random.default_rng(0))
    x = b.linear(b.input, 64)
    y = b.add(op, b.add("ABS", x) if op in ("LOG", "SQRT") else x)
    typed, data, codes = built(graph_of(b, b.linear(y, 3)), target("tflm"))
    assert Counter(n.op for n in typed.nodes)["GATHER"] == 1
    (gather,) = (n for n in typed.nodes if n.op == "GATHER")
    table, cast = typed.tensors[gather.inputs[0]], next(n for n in typed.nodes if n.op == "CAST")
    reads = typed.tensors[cast.inputs[0]].quantization
    (own,) = spec(op).integer([np.arange(-128, 128)[None]], Quants((reads,), (table.quantization,)), spec(op).attrs(),
                              Kernel.REFERENCE)  # fmt: skip
    assert np.array_equal(table.data, own[0])
    assert read(data).nodes[-1].op == typed.nodes[-1].op
    held = next(tensors(data, codes[:1]))  # LiteRT has these ops as well
    found = IntegerExecutor(typed, Kernel.X86).run(codes[0], [gather.outputs[0]])[gather.outputs[0]]
    assert np.array_equal(held[typed.tensors[gather.outputs[0]].name].ravel(), found.ravel())


# --- forms of a target ---


def same(before: Graph, after: Graph) -> None:
    x = image(before).double()
    a, b = (Executor(g, torch.float64).rows(x) for g in (before, after))
    assert torch.allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("shape", "axes"), FLAT)
def test_means_over_last_axes_become_flat(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    b = Builder(np.random.default_rng(0))
    mean = b.add("MEAN", b.reshape(b.input, 1, *shape), b.integers(*axes), keep_dims=True)
    graph = graph_of(b, mean)
    small = replace(target("ethos-u55"), longest_mean=12)
    made = FLAT_MEANS.edit(small).apply(graph)
    same(graph, made)
    for node in made.nodes:
        if node.op == "MEAN":
            read_shape = made.tensors[node.inputs[0]].shape
            assert read_shape[:2] == (1, 1) or axes[-1] != len(read_shape) - 1
            assert read_shape[3] <= 12
    assert FLAT_MEANS.edit(small).apply(made) is made


def test_far_strides_become_convolutions_of_their_own():
    b = Builder(np.random.default_rng(0))
    graph = graph_of(b, b.conv(b.input, 5, kernel=1, padding="VALID", stride_h=3, stride_w=3))
    short = replace(target("ethos-u55"), longest_stride=2)
    made = SHORT_STRIDES.edit(short).apply(SHORT_STRIDES.edit(short).apply(graph))
    same(graph, made)
    strides = [max(n.attrs.stride_h, n.attrs.stride_w) for n in made.nodes if n.op == "CONV_2D"]
    assert len(strides) > 1
    assert max(strides) <= 2
    assert SHORT_STRIDES.edit(target("ethos-u85")).apply(graph) is graph


@pytest.mark.parametrize("own", [True, False])
def test_long_products_become_sums_of_short_ones(own: bool) -> None:
    b = Builder(np.random.default_rng(0))
    row = b.reshape(b.input, 1, 1, 48)
    product = b.add("BATCH_MATMUL", row, row if own else b.reshape(b.add("ABS", b.input), 1, 1, 48), adj_y=True)
    graph, short = graph_of(b, product), replace(target("ethos-u55"), longest_product=20)
    made = SHORT_PRODUCTS.edit(short).apply(graph)
    same(graph, made)
    (node,) = (n for n in made.nodes if n.op == "BATCH_MATMUL")
    assert made.tensors[node.inputs[0]].shape == (3, 1, 16)
    assert (node.inputs[0] == node.inputs[1]) == own
    assert SHORT_PRODUCTS.edit(target("ethos-u55")).apply(graph) is graph


def test_patches_go_back_in_two_steps() -> None:
    b = Builder(np.random.default_rng(0))
    patches = b.reshape(b.input, 2, 2, 2, 2, 3)
    back = b.add("TRANSPOSE", patches, b.integers(2, 0, 3, 1, 4))
    graph, small = graph_of(b, back), replace(target("ethos-u55"), largest_transpose=11)
    made = SHORT_TRANSPOSES.edit(small).apply(graph)
    same(graph, made)
    assert [n.op for n in made.nodes].count("TRANSPOSE") == 2
    assert all(len(made.tensors[n.inputs[0]].shape) < 5 for n in made.nodes if n.op == "TRANSPOSE")
    assert SHORT_TRANSPOSES.edit(target("ethos-u55")).apply(graph) is graph


@pytest.mark.parametrize("keep", [True, False])
def test_sums_become_means(keep: bool) -> None:
    b = Builder(np.random.default_rng(0))
    graph = graph_of(b, b.add("SUM", b.input, b.integers(1, 2), keep_dims=keep))
    made = SUMS.edit(target("tflm")).apply(graph)
    same(graph, made)
    assert [n.op for n in made.nodes] == ["MEAN", "MUL"]


# --- their tools ---


def test_micro_says_why_it_refuses_a_file():
    pytest.importorskip("tflite_micro", reason="needs qhyvit[tflm]")
    _, data, codes = built(with_gelu(), target())
    with pytest.raises(InputError, match=r"TensorFlow Lite Micro cannot run the file: .*'GELU'"):
        run_micro(data, codes)


def test_micro_tells_the_memory_that_it_needs():
    pytest.importorskip("tflite_micro", reason="needs qhyvit[tflm]")
    small, large = (built(random_graph(pieces, seed=3), target("tflm"))[1:] for pieces in (["conv"], ["conv"] * 6))
    arenas = [run_micro(*each).arena_bytes for each in (small, large)]
    assert 500 < arenas[0] < arenas[1] < 1 << 20


@pytest.mark.parametrize("name", ["ethos-u55-128", "ethos-u65", "ethos-u85-256"])
def test_vela_compiles_what_is_built_for_it(name: str) -> None:
    pytest.importorskip("ethosu.vela", reason="needs qhyvit[ethos-u]")
    from qhyvit.verify.vela import compiled

    found = target(name)
    _, data, _ = built(random_graph(["conv", "norm"], seed=3), found)
    npu = compiled(data, found)
    assert (npu.on_cpu, npu.refused) == (0, ())
    assert npu.on_npu >= 3
    assert npu.accelerator == found.accelerator
    assert npu.ms > 0
    assert npu.sram_kib > 0
    assert npu.model[4:8] == b"TFL3"
    assert "100.0%" in npu.said


def test_vela_says_what_it_refuses_and_why():
    pytest.importorskip("ethosu.vela", reason="needs qhyvit[ethos-u]")
    from qhyvit.verify.vela import compiled

    b = Builder(np.random.default_rng(0))
    graph = graph_of(b, b.add("REVERSE_V2", b.linear(b.input, 4), b.integers(3)))
    npu = compiled(built(graph, target("ethos-u55"))[1], target("ethos-u55"))
    assert npu.on_cpu == 1
    assert npu.refused[0][0] == "REVERSE_V2"
    assert "REVERSE_V2: " in npu.said


@pytest.mark.parametrize(("name", "words", "module"), [
    ("tflm", "KiB of flash", "tflite_micro"), ("ethos-u55", "operators on the NPU", "ethosu.vela"),
    ("edgetpu-rules", "operators could be mapped", "numpy"), ("litert", None, "numpy"),
])  # fmt: skip
def test_what_is_known_of_a_file_on_its_target_informs_and_passes_nothing(tmp_path, name, words, module) -> None:
    pytest.importorskip(module, reason="needs an extra of qhyvit")
    _, data, codes = built(random_graph(["conv"], seed=3), target(name))
    facts, notes = on_target(Work(tmp_path), QuantPlan({}, "minmax", target=name), data, codes[0])
    assert facts["proof"] == target(name).proof
    assert [words in note.detail for note in notes] == ([True] if words else [])
    assert all(set(vars(note)) == {"name", "detail"} for note in notes)


def test_what_is_no_file_is_one_line():
    pytest.importorskip("ethosu.vela", reason="needs qhyvit[ethos-u]")
    from qhyvit.verify.vela import compiled

    with pytest.raises(InputError, match="Vela cannot compile the file for ethos-u55-256: "):
        compiled(b"no model at all", target("ethos-u55"))
