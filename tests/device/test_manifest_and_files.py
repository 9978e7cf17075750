"""Manifests and model files are untrusted: everything hostile is refused with its reason."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit_device import files, flat, info, manifest
from qhyvit_device.errors import CheckFailedError, InputError, ManifestError
from qhyvit_device.manifest import Input, Manifest, Output, SelfTest
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.results import Outputs
from qhyvit_device.runner import Model, TfliteFile

GOOD = Manifest(
    "m", "integer", Input(8, 8, "int8", 0.01, -128), (Output("logits", (1, 3), "int8", 0.1, 0),),
    Preprocess("crop", 9, "bilinear"),
    SelfTest("test.png", (1, 2, 3), "x86_64", "litert 1"),
    dict.fromkeys(("model.tflite", "labels.txt", "test.png"), "0" * 64),
)  # fmt: skip


def raw_output(name):
    return {"name": name, "shape": [1, 3], "dtype": "int8", "scale": 0.1, "zero_point": 0}


def raw():
    found = json.loads(manifest.dumps(GOOD))
    assert isinstance(found, dict)
    return found


def test_round_trip():
    assert manifest.from_dict(raw()) == GOOD


def change(where, value):
    data = raw()
    *path, last = where.split(".")
    inner = data
    for key in path:
        inner = inner[int(key) if key.isdigit() else key]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("schema_version", 3, "schema_version is 3, need 2 or 1; update"),
        ("schema_version", 0, "schema_version"),
        ("schema_version", True, "wrong type"),
        ("schema_version", "2", "wrong type"),
        ("surprise", 1, "unknown key manifest.surprise"),
        ("input.surprise", 1, "unknown key manifest.input.surprise"),
        ("model_file", "../../etc/passwd", "plain file name"),
        ("model_file", "/etc/passwd", "plain file name"),
        ("labels_file", "..", "plain file name"),
        ("checksums", {"a\\b": "0"}, "plain file name"),
        ("checksums", {}, "no checksum"),
        ("checksums", {"model.tflite": 5}, "wrong type"),
        ("input.height", 10**9, "out of bounds"),
        ("input.height", "8", "wrong type"),
        ("input.height", True, "wrong type"),
        ("outputs", [], "1 to 64 outputs"),
        ("outputs", [raw_output("a")] * 2, "a name of its own"),
        ("outputs", [raw_output(str(i)) for i in range(65)], "1 to 64 outputs"),
        ("outputs", {}, "no list"),
        ("outputs", [3], r"manifest.outputs\[0\] must be an object"),
        ("outputs.0.surprise", 1, r"unknown key manifest.outputs\[0\].surprise"),
        ("outputs.0.name", "../x", "plain file name"),
        ("outputs.0.name", "", "plain file name"),
        ("outputs.0.shape", [1, 0], "out of bounds"),
        ("outputs.0.shape", [1, 1 << 21], "out of bounds"),
        ("outputs.0.shape", [1 << 50] * 8, "out of bounds"),
        ("outputs.0.shape", [1] * 9, "out of bounds"),
        ("outputs.0.shape", [1.5], "right kind"),
        ("task", "dream", "unknown; known: classify, multilabel"),
        ("task", "embed", "has no labels_file"),
        ("task", "segment", r"map of shape \[1, 3\], need"),
        ("labels_file", None, "has a labels_file"),
        ("test.step", 0, "out of bounds"),
        ("input.layout", "NCHW", "NHWC"),
        ("test.codes", ["a"], "right kind"),
        ("preprocess", None, "must be an object"),
        ("preprocess.std", [0.0, 1.0, 1.0], "out of bounds"),
    ],
)
def test_hostile_manifests_are_refused(where, value, reason):
    with pytest.raises((ManifestError, InputError), match=reason):
        manifest.from_dict(change(where, value))


@pytest.mark.parametrize("shape", [[1, 5, 4, 4097], [1, 4097, 4, 3], [2, 4, 4, 3], [4, 4, 3]])
def test_a_map_is_small_enough_for_a_row_of_it_to_be_held(shape):
    data = change("outputs.0.shape", shape)
    with pytest.raises(ManifestError, match="need \\[1, height, width, classes\\]"):
        manifest.from_dict({**data, "task": "segment"})
    assert manifest.from_dict({**change("outputs.0.shape", [1, 5, 4, 3]), "task": "segment"}).classes == 3


def test_missing_keys_are_named():
    data = raw()
    del data["outputs"]
    with pytest.raises(ManifestError, match="outputs"):
        manifest.from_dict(data)


OLD = json.loads((Path(__file__).parent / "schema1" / "manifest.json").read_text())


def test_a_manifest_of_schema_1_is_read_as_one_of_the_newest():
    found = manifest.from_dict(OLD)
    assert found.outputs == (Output("logits", (1, 3), "int8", 0.003921568859368563, -128),)
    assert (found.task, found.labels_file, found.classes, found.test.step) == ("classify", "labels.txt", 3, 1)
    assert json.loads(manifest.dumps(found))["schema_version"] == 2
    assert manifest.from_dict(json.loads(manifest.dumps(found))) == found


@pytest.mark.parametrize(("changes", "reason"), [
    ({"output": None}, "manifest.output must be an object"), ({"output": {**OLD["output"], "classes": 0}}, "of bounds"),
    ({"output": {**OLD["output"], "classes": "3"}}, "manifest.output.classes has the wrong type"),
    ({"output": {**OLD["output"], "classes": 1 << 60}}, "wrong type"), ({"task": "embed"}, "unknown key manifest.task"),
    ({"output": {**OLD["output"], "shape": [1, 3]}}, "unknown key manifest.output.shape"),
    ({"outputs": []}, "unknown key manifest.outputs"), ({"schema_version": 2}, "unknown key manifest.output"),
])  # fmt: skip
def test_a_hostile_manifest_of_schema_1_is_refused(changes, reason):
    with pytest.raises(ManifestError, match=reason):
        manifest.from_dict({**OLD, **changes})
    with pytest.raises(ManifestError, match=r"manifest\.output is missing"):
        manifest.from_dict({k: v for k, v in OLD.items() if k != "output"})


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(
    st.sampled_from([*raw(), "x"]), c), max_leaves=8))  # fmt: skip
def test_any_json_is_a_manifest_or_a_clear_error(data):
    with pytest.raises((ManifestError, InputError)):
        manifest.from_dict(data)


def test_files_of_a_manifest(tmp_path):
    path = tmp_path / "manifest.json"
    with pytest.raises(InputError, match="bundle folder"):
        manifest.load(path)
    path.write_text("{")
    with pytest.raises(ManifestError, match="not JSON"):
        manifest.load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(ManifestError):
        manifest.load(path)
    path.write_bytes(b" " * (manifest.MAX_BYTES + 1))
    with pytest.raises(InputError, match="more than 4 MB"):
        manifest.load(path)


def test_changed_files_are_refused(tmp_path):
    for name in GOOD.checksums:
        (tmp_path / name).write_text("x")
    (tmp_path / "manifest.json").write_text(manifest.dumps(GOOD))
    with pytest.raises(InputError, match="checksum differs"):
        manifest.read_bundle(tmp_path)


@pytest.mark.parametrize(("make", "words"), [
    (lambda path: path.symlink_to("same"), "links are refused"),
    (lambda path: path.symlink_to("/dev/zero"), "links are refused"),
    (lambda path: path.symlink_to(path), "links are refused"),
    (os.mkfifo, "not a regular file"),
    (lambda path: path.mkdir(), "a folder, not a file"),
    (lambda path: None, "No such file"),
])  # fmt: skip
@pytest.mark.parametrize("name", ["model.tflite", "labels.txt", "test.png", "manifest.json"])
def test_what_is_no_regular_file_is_refused_and_never_waited_for(bundle, tmp_path, name, make, words):
    shutil.copytree(bundle, tmp_path / "b")
    (tmp_path / "b" / name).rename(tmp_path / "b" / "same")
    make(tmp_path / "b" / name)
    with pytest.raises(InputError, match=words):
        manifest.read_bundle(tmp_path / "b")


@pytest.mark.parametrize("command", ["info {}", "classify {} x.png", "classify {} x.png --trust once", "bench {}",
                                     "update new {}", "classify {} --watch {}"])  # fmt: skip
def test_a_fifo_in_the_place_of_a_bundle_is_never_waited_for(tmp_path, command):
    os.mkfifo(tmp_path / "b")
    words = [sys.executable, "-m", "qhyvit_device", *command.format("b", "b").split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("qhyvit-device: error: b")
    assert done.stderr.count("\n") == 1


def test_the_bytes_that_were_hashed_are_the_ones_that_run(monkeypatch, tmp_path, bundle):
    """Whoever replaces a file between the check and the load changes nothing: there is one read."""
    shutil.copytree(bundle, tmp_path / "b")
    read = manifest.files.read
    seen = []

    def replaced_behind(path, most, **options):
        content = read(path, most, **options)
        seen.append(path.name)
        path.write_bytes(b"another")
        return content

    monkeypatch.setattr(manifest.files, "read", replaced_behind)
    model = Model.load(tmp_path / "b")
    assert info.self_test(model)["equal_codes"] == 1.0
    assert len(model.labels) == 10
    assert sorted(seen) == sorted(p.name for p in bundle.iterdir())


@pytest.fixture(scope="module")
def model() -> bytes:
    """A RESHAPE of [1, 2, 2, 3] with a constant, as bytes."""
    import flatbuffers

    def tensor(name, shape, buffer, kind=schema.TensorType.FLOAT32):
        t = schema.TensorT()
        t.name, t.shape, t.buffer, t.type = name, shape, buffer, kind
        return t

    data = schema.BufferT()
    data.data = np.frombuffer(np.array([1, 12], np.int32).tobytes(), np.uint8)
    subgraph = schema.SubGraphT()
    shape = tensor("s", [2], 1, schema.TensorType.INT32)
    subgraph.tensors = [tensor("x", [1, 2, 2, 3], 0), shape, tensor("y", [1, 12], 0)]
    subgraph.inputs, subgraph.outputs = [0], [2]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    subgraph.operators = [operator]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    code.version = 1
    whole = schema.ModelT()
    whole.version, whole.operatorCodes, whole.subgraphs = 3, [code], [subgraph]
    whole.buffers = [schema.BufferT(), data]
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_every_truncation_is_refused_before_the_interpreter_sees_it(model):
    flat.check(model, "whole")
    for length in range(len(model) - 8):
        with pytest.raises(InputError):
            flat.check(model[:length], "cut")


def test_whatever_passes_the_check_does_not_kill_the_process(model, tmp_path):
    script = (
        "import sys; from pathlib import Path; from qhyvit_device.errors import InputError\n"
        "from qhyvit_device.runner import TfliteFile\n"
        "import numpy as np\n"
        "data = Path(sys.argv[1]).read_bytes()\n"
        "for n in [*range(0, len(data), 16), len(data)]:\n"
        "    try: print(TfliteFile(data[:n]).run(np.ones((2, 2, 3), np.float32)).sum())\n"
        "    except InputError as error: pass\n"
    )
    path = tmp_path / "m.tflite"
    path.write_bytes(model)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["12.0"]


def test_every_module_imports_where_torch_does_not():
    folder = Path(manifest.__file__).parent
    modules = [".".join(p.relative_to(folder).with_suffix("").parts) for p in folder.rglob("*.py") if p.stem[0] != "_"]
    assert len(modules) >= 30
    script = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'timm', 'tensorflow', 'qhyvit'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import importlib, qhyvit_device\n"
        f"for name in {modules!r}: importlib.import_module('qhyvit_device.' + name)\n"
        "assert qhyvit_device.Model\n"
        "print('ok')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ok", done.stderr


def on_machine(machine, outcome, monkeypatch, **changes):
    """The self test's facts where ``machine`` runs the model and gives ``outcome``; the bundle is from x86-64."""
    test = SelfTest("test.png", (10, 50, 20), "x86_64", "litert 1", **changes)
    file = SimpleNamespace(runtime="litert", runtime_version="1")
    model = SimpleNamespace(
        manifest=SimpleNamespace(test=test, task="classify"), picture=b"", file=file, prepare=lambda *a, **k: None,
        run=lambda x: Outputs(GOOD.outputs, [np.array(outcome, np.int8)]),
    )  # fmt: skip
    monkeypatch.setattr(info.platform, "machine", lambda: machine)
    return info.self_test(model)


def test_a_board_is_held_to_what_the_host_simulated_for_it(monkeypatch):
    simulated = {"arm64_codes": (14, 47, 21)}
    found = on_machine("aarch64", (14, 47, 21), monkeypatch, **simulated)
    assert (found["equal_codes"], found["made_on"]) == (1.0, "x86_64, simulated for aarch64")
    with pytest.raises(CheckFailedError, match="simulated for aarch64, allowed 2"):
        on_machine("aarch64", (10, 50, 20), monkeypatch, **simulated)
    assert on_machine("aarch64", (14, 47, 21), monkeypatch)["worst_difference"] == 4  # an older bundle
    with pytest.raises(CheckFailedError, match="allowed 0"):
        on_machine("x86_64", (10, 49, 20), monkeypatch, **simulated)


def test_another_decision_fails_however_near(monkeypatch):
    with pytest.raises(CheckFailedError):
        on_machine("aarch64", (2, 1, 0), monkeypatch, arm64_codes=(1, 2, 0))


def test_a_file_takes_no_more_memory_than_its_size(tmp_path, monkeypatch):
    asked = []

    class Noted(io.BytesIO):
        def read(self, size=-1):
            asked.append(size)
            return super().read(size)

    assert files._content(Noted(b"abc"), 3, 1 << 30) == b"abc"
    assert max(asked) == 4
    assert files._content(Noted(b"abcdef"), 3, 1 << 30) == b"abcdef"  # it has grown
    assert len(files._content(Noted(bytes(9)), 3, 5)) > 5


def test_an_input_of_another_size_is_refused_in_plain_numbers(model):
    with pytest.raises(InputError) as refused:
        TfliteFile(model).run(np.ones((4, 2, 3), np.float32))
    assert str(refused.value) == "input must be float32 [1, 2, 2, 3], got float32 [1, 4, 2, 3]"
