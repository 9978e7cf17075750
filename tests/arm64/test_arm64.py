"""The device stage on emulated arm64 processors (``make test-arm64``): Cortex-A53, A72 (no dot product) and A76.

Emulation shows what is computed, never how fast a board is.
"""

import json

import numpy as np
import pytest
import torch

from benchmarks._arm64 import PROCESSORS, SCRIPT, emulate
from benchmarks.demo.images import SHAPES, draw_image
from qhyvit.bundle import write_bundle
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.lowering.profiles import widened
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Kernel
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit.verify import agree
from qhyvit.verify.decide import simulated_codes
from qhyvit.verify.probe import make_interpreter, run
from qhyvit_device.info import OTHER_MACHINE_TOLERANCE, SIMULATED_TOLERANCE
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.preprocess import quantize as codes_of

pytestmark = pytest.mark.arm64
IMAGES, SIZE = 50, 128
HOW = Preprocess("squash", SIZE, "bicubic")


@pytest.fixture(scope="session")
def solution(small_v1, inputs):
    chosen = method("qhyvit")
    options = {**chosen.defaults, "rounds": 2, "learn": 0}
    return chosen.search(Problem(small_v1.graph, inputs), options)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, solution):
    folder = tmp_path_factory.mktemp("arm")
    graph = solution.graph
    plan = QuantPlan(solution.tensors, "qhyvit", wide=tuple(graph.tensors[t].name for t in graph.widened))
    draw_image(3, np.random.default_rng(3), SIZE).save(folder / "test.png")
    facts = {"model": "mobilevit_xxs", "profile": "integer", "versions": {}, "created_by": {}}

    typed = lower(solution.shipped, plan).graph
    entry = solution.tensors[graph.tensors[graph.inputs[0]].name]

    def on_arm64(pixels):
        codes = codes_of(pixels, HOW, entry.scale[0], entry.zero_point[0], "int8")[None]
        return simulated_codes(typed, [codes], Kernel.ARM64)[0]

    data = serialize(typed)
    write_bundle(folder / "b", data, HOW, folder / "test.png", list(SHAPES), facts, on_arm64=on_arm64)
    return folder / "b"


@pytest.fixture(scope="session")
def feed(bundle):
    """Input codes of IMAGES generated pictures, and the file that holds them."""
    entry = json.loads((bundle / "manifest.json").read_text())["input"]
    pixels = [np.asarray(draw_image(i % 10, np.random.default_rng((9, i)), SIZE)) for i in range(IMAGES)]
    codes = np.stack([codes_of(p, HOW, entry["scale"], entry["zero_point"], "int8") for p in pixels])
    path = bundle.parent / "images.npy"
    np.save(path, codes)
    return codes, path


def outputs(arm, bundle, feed, processor, way, count=IMAGES):
    """Output codes [count, classes], what the process said, and the codes of all tensors where they were asked for."""
    images, out = bundle.parent / f"{count}.npy", bundle.parent / f"{processor}-{way}.npz"
    np.save(images, feed[0][:count])
    done = emulate(arm, processor, SCRIPT, bundle / "model.tflite", images, out, way)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        tensors = {str(name): found[str(i)] for i, name in enumerate(found["names"])}
        return found["outputs"].astype(int), json.loads(done.stdout.splitlines()[-1]), tensors


@pytest.fixture(scope="session")
def by_processor(arm, bundle, feed):
    return {p: outputs(arm, bundle, feed, p, "xnnpack") for p in PROCESSORS}


@pytest.fixture(scope="session")
def here(bundle, feed):
    interpreter = make_interpreter((bundle / "model.tflite").read_bytes())
    return np.stack([run(interpreter, x[None]).ravel() for x in feed[0]]).astype(int)


def test_xnnpack_takes_the_graph_on_every_processor(by_processor):
    for codes, said, _ in by_processor.values():
        assert said["machine"] == "aarch64"
        assert said["partitions"] > 1
        assert len(codes) == IMAGES


def test_arm_processors_agree_bit_for_bit(by_processor):
    first, *others = (codes for codes, _, _ in by_processor.values())
    assert all(np.array_equal(first, other) for other in others)


def test_arm_decides_as_x86_does_and_the_simulation_says_by_how_much_it_differs(by_processor, here, bundle, feed):
    codes = by_processor["cortex-a72"][0]
    typed = read((bundle / "model.tflite").read_bytes())
    simulated = simulated_codes(typed, [x[None] for x in feed[0]], Kernel.ARM64)
    for name, other in (("x86", here), ("simulation", simulated)):
        equal, worst = (codes == other).mean(), np.abs(codes - other).max()
        print(f"{name} and arm64: {equal:.1%} of the output codes equal, worst difference {worst}")
    # SOFTMAX's kernel is another one there; with it in the simulation nothing is left
    assert np.array_equal(codes, simulated)
    worst = np.abs(codes - here).max()
    assert worst < OTHER_MACHINE_TOLERANCE  # a self test without these codes holds; 2 or 3, by the file
    first, second = np.sort(here, axis=1)[:, :-3:-1].T
    parted = codes.argmax(1) != here.argmax(1)
    print(f"x86 and arm64 decide alike on {IMAGES - parted.sum()} of {IMAGES} images")
    assert (first - second)[parted].max(initial=0) <= 2 * worst  # ties but for what the kernels differ by
    assert parted.mean() <= 0.05


@pytest.fixture(scope="session")
def plain(tmp_path_factory, small_v1, inputs):
    """A file without ELU, which the reference kernels lack."""
    folder = tmp_path_factory.mktemp("plain") / "b"
    folder.mkdir()
    found = method("minmax").search(Problem(small_v1.graph, inputs), {"observer": "minmax"})
    (folder / "model.tflite").write_bytes(quantized_file(found.shipped, QuantPlan(found.tensors, "minmax")))
    return folder


def test_reference_kernels_agree_with_x86_bit_for_bit(arm, plain, feed):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    options = {"experimental_op_resolver_type": OpResolverType.BUILTIN_REF}
    interpreter = Interpreter(model_path=str(plain / "model.tflite"), num_threads=1, **options)
    interpreter.allocate_tensors()
    expected = np.stack([run(interpreter, x[None]).ravel() for x in feed[0][:8]]).astype(int)
    for processor in ("cortex-a53", "cortex-a76"):
        assert np.array_equal(outputs(arm, plain, feed, processor, "reference", 8)[0], expected)


def test_each_op_on_arm_against_the_simulation(arm, bundle, feed, solution, monkeypatch):
    """Bit by bit."""
    count = 4
    _, _, tensors = outputs(arm, bundle, feed, "cortex-a72", "tensors", count)
    images = [
        {name.partition("|")[2]: x for name, x in tensors.items() if name.startswith(f"{i}|")} for i in range(count)
    ]
    monkeypatch.setattr(agree, "make_interpreter", lambda *a, **k: None)
    monkeypatch.setattr(agree, "every_tensor", lambda interpreter, codes: iter(images))
    entry = solution.tensors[solution.graph.tensors[solution.graph.inputs[0]].name]
    floats = (feed[0][:count].astype(np.float32) - entry.zero_point[0]) * np.float32(entry.scale[0])
    plan = QuantPlan(solution.tensors, "qhyvit")
    lowered = lower(solution.shipped, plan)
    for kernel in (Kernel.X86, Kernel.ARM64):
        found = agree.op_by_op(
            solution.graph, lowered, b"", torch.from_numpy(floats), feed[0][:count], kernel
        )  # fmt: skip
        parted = {op.op: (op.compared - op.equal, op.compared) for op in found.ops.values() if op.worst}
        print(f"differ from {kernel}'s simulation: {parted or 'none'}")
        assert not found.missing
        assert all(op.worst <= 1 for op in found.ops.values())
    assert not parted


@pytest.mark.parametrize("positions", [49, 3136])
@pytest.mark.parametrize("wide", [False, True])
def test_softmax_on_arm_is_the_simulations(arm, tmp_path, positions, wide):
    shape, rng = (1, 12, positions), np.random.default_rng(positions)
    tensors = {i: Tensor(i, name, shape, "FLOAT32") for i, name in enumerate("xy")}
    node = Node("SOFTMAX", spec("SOFTMAX").attrs(), (0,), (1,))
    graph = widened(Graph(tensors, (node,), (0,), (1,)), [1] if wide else [])
    codes = np.clip(rng.normal(0, 40, (4, *shape[1:])), -128, 127).astype(np.int8)
    x = torch.from_numpy(codes * 0.05)
    y = torch.softmax(x.double(), dim=-1)
    s_out = float(np.float32(float(y.max()) / 255)) if wide else 1 / 256
    quants = {"x": TensorQuant((float(np.float32(0.05)),), (0,)), "y": TensorQuant((s_out,), (-128,))}
    typed = lower(graph, QuantPlan(quants, "test", wide=("y",) if wide else ())).graph
    (tmp_path / "model.tflite").write_bytes(serialize(typed))
    np.save(tmp_path / "x.npy", codes)
    done = emulate(
        arm, "cortex-a72", SCRIPT, tmp_path / "model.tflite", tmp_path / "x.npy", tmp_path / "o.npz", "xnnpack"
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "o.npz") as stored:
        found = stored["outputs"].astype(int)
    mine = simulated_codes(typed, [x[None] for x in codes], Kernel.ARM64).reshape(found.shape)
    assert np.array_equal(mine, found)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_device_stage_runs_there(arm, bundle, processor):
    done = emulate(arm, processor, "-m", "qhyvit_device", "info", bundle, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["machine"] == "aarch64"
    assert facts["delegate_partitions"] > 1
    assert facts["self_test"]["same_decision"]
    assert facts["self_test"]["made_on"].endswith("simulated for aarch64")
    assert facts["self_test"]["worst_difference"] <= SIMULATED_TOLERANCE
    shown = emulate(arm, processor, "-m", "qhyvit_device", "classify", bundle, bundle / "test.png", "--top", "1")
    assert shown.returncode == 0, shown.stderr


def test_a_bench_under_emulation_says_so(arm, bundle):
    options = ("--runs", "1", "--seconds", "0", "--warmup", "0", "--no-memory", "--json")
    done = emulate(arm, "cortex-a76", "-m", "qhyvit_device", "bench", bundle, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["benches"][0]
    assert "asimddp" in found["board"]["features"]
    assert any("emulated" in w for w in found["warnings"])
