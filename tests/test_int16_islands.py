"""Islands of int16: placed where int8 loses much, written, and proven op by op."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.errors import PlanError
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node, Quantization, Tensor
from qhyvit.latency.profile import default_profile
from qhyvit.lowering.int16_roots import parted_roots
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.lowering.profiles import ids_of, with_islands
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem, Solution, outputs_of
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Kernel, NoAttrs, Quants
from qhyvit.passes import int16_sums
from qhyvit.plan import QuantPlan
from qhyvit.report.changes import changes
from qhyvit.report.cost import Costs
from qhyvit.sim.run import Executor
from qhyvit.stages.solved import Solved
from qhyvit.store import Store
from qhyvit.tasks import task
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.census import census
from qhyvit.verify.probe import make_interpreter, run
from qhyvit.verify.report import Report, verify
from qhyvit_device.runner import TfliteFile
from tests._graphs import Builder

WIDTH, BLOCKS = 16, 3
FAST = {"rounds": 3, "learn": 0}


def _norm(b: Builder, x: int) -> int:
    channels = len(b.shape(x)) - 1
    mean = b.add("MEAN", x, b.integers(channels), keep_dims=True)
    centre = b.add("SUB", x, mean)
    variance = b.add("MEAN", b.add("MUL", centre, centre), b.integers(channels), keep_dims=True)
    eps = b.tensor("eps", (1, 1, 1), data=np.full((1, 1, 1), 1e-5, np.float32))
    return b.add("MUL", centre, b.add("RSQRT", b.add("ADD", variance, eps)))


def stream(*, spread: float) -> Graph:
    """Tokens with a residual stream and norms; the variances of the tokens differ ``spread``-fold squared."""
    b = Builder(np.random.default_rng(0))
    x = b.tokens(b.conv(b.input, WIDTH))
    size = np.geomspace(1.0, spread, b.shape(x)[1]).reshape(1, -1, 1).astype(np.float32)
    massive = np.ones((1, 1, WIDTH), np.float32)
    massive[..., 0] = spread
    x = b.add("MUL", x, b.tensor("size", size.shape, data=size))
    x = b.add("MUL", x, b.tensor("massive", massive.shape, data=massive))
    for _ in range(BLOCKS):
        inner = b.add("RELU", b.linear(_norm(b, x), 2 * WIDTH))
        x = b.add("ADD", x, b.linear(inner, WIDTH))
    pooled = b.add("MEAN", _norm(b, x), b.integers(1))
    return b.graph(b.linear(pooled, 10))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(24, 4, 4, 3, generator=torch.Generator().manual_seed(1))


def search(graph: Graph, images: torch.Tensor, **options: object) -> Solution:
    chosen, problem = method("qhyvit"), Problem(graph, images, task=task("raw"))
    return chosen.search(problem, {**chosen.defaults, **FAST, **options})


def plan_of(found: Solution) -> QuantPlan:
    names = tuple(t.name for t in found.graph.activations() if t.id in found.graph.islands)
    return QuantPlan(found.tensors, "qhyvit", floats=names, int16=found.int16)


def input_codes(found: Solution, images: torch.Tensor) -> list[np.ndarray]:
    quant = found.tensors[found.graph.tensors[found.graph.inputs[0]].name]
    codes = np.rint(images.numpy() / quant.scale[0]) + quant.zero_point[0]
    return list(np.clip(codes, -128, 127).astype(np.int8)[:, None])


def deployed(found: Solution, images: torch.Tensor) -> np.ndarray:
    """Outputs of the written file, [N, outputs]."""
    file = TfliteFile(quantized_file(found.shipped, plan_of(found)))
    scale, zero = file.output["quantization"]
    return np.stack([(file.run(c[0]).astype(np.float64).ravel() - zero) * scale for c in input_codes(found, images)])


def error(found: Solution, graph: Graph) -> float:
    """Mean 1 - correlation of the file's outputs with the float graph's, on images that nobody calibrated on."""
    held_out = torch.randn(16, 4, 4, 3, generator=torch.Generator().manual_seed(2))
    reference = outputs_of(graph, held_out).numpy()
    pairs = zip(reference, deployed(found, held_out), strict=True)
    return float(np.mean([1 - np.corrcoef(x, y)[0, 1] for x, y in pairs]))


@pytest.fixture(scope="module")
def hard() -> Graph:
    return stream(spread=50.0)


@pytest.fixture(scope="module")
def found(hard, images) -> Solution:
    return search(hard, images)


def checked(found: Solution, images: torch.Tensor, data: bytes | None = None, plan: QuantPlan | None = None) -> Report:
    plan = plan or plan_of(found)
    data = data or quantized_file(found.shipped, plan)
    return verify(found.graph, lower(found.shipped, plan), data, images[:4], input_codes(found, images[:4]))


def test_int16_saves_tokens_of_far_apart_variances(hard, found, images):
    without = search(hard, images, int16_ms=0.0)
    assert without.int16 == {}
    assert not without.graph.islands
    assert found.int16
    assert error(found, hard) < 0.2 * error(without, hard)


def test_the_file_is_integer_and_every_op_of_it_is_as_simulated(found, images):
    data = quantized_file(found.shipped, plan_of(found))
    counted = census(data)
    assert counted.float_tensors == ()
    assert {op for (op, dtype) in counted.ops if dtype == "INT16"} >= {"QUANTIZE", "MUL", "SUB", "SUM", "RSQRT"}
    assert not {op for (op, _) in counted.ops} & {"DEQUANTIZE"}
    assert "newer" in counted.oldest_runtime
    wide = [(op, n) for (op, dtype), n in counted.ops.items() if dtype == "INT16"]  # XNNPACK has no such kernels
    assert all(counted.not_delegated[op] >= n for op, n in wide)
    report = checked(found, images, data)
    assert report.passed, [c for c in report.checks if not c.passed]
    inside = {name: row for name, row in report.agreements["litert"].ops.items() if name.endswith(" int16")}
    assert {"QUANTIZE int16", "MUL int16", "RSQRT int16", "BATCH_MATMUL int16"} <= set(inside)
    assert {row.worst for row in inside.values()} == {0}
    assert {d.equal_codes for d in report.decisions.values()} == {1.0}


def test_what_the_islands_compute_is_what_the_graph_did(hard, found, images):
    assert torch.allclose(outputs_of(hard, images), outputs_of(found.graph, images), rtol=1e-3, atol=1e-3)


def test_a_network_that_does_well_in_int8_has_none(images):
    easy = search(stream(spread=1.0), images)
    assert easy.int16 == {}
    assert not easy.graph.islands


def test_a_search_that_goes_on_from_its_pieces_finds_the_same(hard, found, images, tmp_path):
    store = Store(tmp_path / "part")
    store.open("key")
    chosen = method("qhyvit")
    problem = Problem(hard, images, task=task("raw"), store=store)
    for _ in range(2):
        again = chosen.search(problem, {**chosen.defaults, **FAST})
        assert again.tensors == found.tensors
        assert again.int16 == found.int16


def test_a_work_directory_keeps_all_that_the_file_needs(found):
    plan = QuantPlan.from_json(plan_of(found).to_json())
    folded = read(serialize(found.graph))
    folded = with_islands(folded, "integer", ids_of(folded, plan.floats))
    assert quantized_file(edit.with_named(folded, found.constants), plan) == quantized_file(found.shipped, plan)


def test_a_report_has_changes_for_it(hard, found, images):
    plan = plan_of(found)
    problem = Problem(hard, images, task=task("raw"))
    solved = Solved(found.graph, found.shipped, plan)
    costs = Costs(solved, images[:4], problem.targets[:4], problem.lowered)
    assert changes(plan, "qhyvit build", costs, 1.0, default_profile())


def test_the_plan_keeps_the_scales(found):
    plan = plan_of(found)
    assert QuantPlan.from_json(plan.to_json()).int16 == plan.int16


@pytest.mark.parametrize("op", ["MUL", "RSQRT", "SUB"])
def test_verification_finds_a_wrong_scale(found, images, op):
    model = flatbuffer.load_model(quantized_file(found.shipped, plan_of(found)))
    graph = model.subgraphs[0]
    outputs = [graph.tensors[o.outputs[0]] for o in graph.operators if flatbuffer.op_name(model, o) == op]
    wrong = next(t for t in outputs if flatbuffer.TENSOR_TYPE[t.type] == "INT16")
    wrong.quantization.scale = [float(wrong.quantization.scale[0]) * 1.01]
    report = checked(found, images, flatbuffer.pack(model))
    assert [c.name for c in report.checks if not c.passed]


def test_verification_finds_a_wrong_entry(found, images):
    model = flatbuffer.load_model(quantized_file(found.shipped, plan_of(found)))
    graph = model.subgraphs[0]
    entries = [o for o in graph.operators if flatbuffer.op_name(model, o) == "QUANTIZE"]
    wrong = next(t for t in (graph.tensors[o.outputs[0]] for o in entries) if flatbuffer.TENSOR_TYPE[t.type] == "INT16")
    wrong.quantization.scale = [float(wrong.quantization.scale[0]) * 1.01]
    assert not checked(found, images, flatbuffer.pack(model)).passed


def test_a_float_tensor_without_a_scale_is_refused(found):
    plan = plan_of(found)
    others = list(plan.int16)[1:]
    with pytest.raises(PlanError, match="held in int16"):
        quantized_file(found.shipped, replace(plan, int16={name: plan.int16[name] for name in others}))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e4])
def test_the_int16_root_is_computed_as_its_kernel_does(size):
    """Against the interpreter: every code from 0 on."""
    b = Builder(np.random.default_rng(0))
    codes = np.arange(2**15).astype(np.int16)
    out_scale = 2 / np.sqrt(1024 * size) / 2**15
    b.tensors = [Tensor(0, "x", codes.shape, "FLOAT32"), Tensor(1, "y", codes.shape, "FLOAT32")]
    graph = Graph(dict(enumerate(b.tensors)), (Node("RSQRT", spec("RSQRT").attrs(), (0,), (1,)),), (0,), (1,))
    quantized = [Quantization((float(np.float32(s)),), bits=16) for s in (size, out_scale)]
    typed = {t.id: replace(t, dtype="INT16", quantization=q) for t, q in zip(b.tensors, quantized, strict=True)}
    found = run(make_interpreter(serialize(replace(graph, tensors=typed))), codes)
    quants = Quants((quantized[0],), (quantized[1],))
    (steps,) = spec("RSQRT").integer([codes.astype(np.int64)], quants, NoAttrs(), Kernel.X86)
    assert np.array_equal(found, steps)
    real = 1 / np.sqrt(codes.clip(1) * size) / out_scale
    assert np.abs(steps / real - 1)[codes >= 1024].max() < 2e-3
    assert np.abs(steps / real - 1)[codes < 256].max() > 1e-2  # why roots have two parts


def test_a_root_in_two_parts_is_the_root():
    b = Builder(np.random.default_rng(0))
    x = b.reshape(b.input, 1, 16, 1, 3)
    squares = b.add("BATCH_MATMUL", x, x, adj_y=True)
    constants = [b.tensor("c", (1, 1, 1, 1), data=np.full((1, 1, 1, 1), v, np.float32)) for v in (1 / 3, 1e-5)]
    root = b.add("RSQRT", b.add("ADD", b.add("MUL", squares, constants[0]), constants[1]))
    graph = b.graph(root)
    graph = with_islands(graph, "integer", [n.outputs[0] for n in graph.nodes])
    sizes = torch.logspace(-2, 2, 4)[:, None, None]
    images = sizes * torch.randn(4, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    parted = parted_roots(graph, lambda t: (1e-4, 1e4))
    assert sum(n.op == "RSQRT" for n in parted.nodes) == 2
    assert parted_roots(graph, lambda t: (1.0, 10.0)) is graph
    before, after = (Executor(g, torch.float64).rows(images) for g in (graph, parted))
    assert torch.allclose(before, after, rtol=1e-5)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("squared", [True, False])
def test_means_as_sums_are_the_same(keep, squared):
    b = Builder(np.random.default_rng(0))
    x = b.add("MUL", b.input, b.input) if squared else b.input
    graph = b.graph(b.add("MEAN", x, b.integers(3), keep_dims=keep))
    graph = with_islands(graph, "integer", [n.outputs[0] for n in graph.nodes])
    summed = int16_sums.apply(graph)
    summed.check()
    assert {n.op for n in summed.nodes} >= ({"BATCH_MATMUL"} if squared else {"SUM"})
    assert "MEAN" not in {n.op for n in summed.nodes}
    assert {t for n in summed.nodes for t in n.outputs} == set(summed.islands)
    images = torch.randn(2, 4, 4, 3)
    assert torch.allclose(Executor(graph).rows(images), Executor(summed).rows(images), rtol=1e-5, atol=1e-6)
