"""Bundles of every task that are hostile, large or of an older version, and their models."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from qhyvit_device import Model, info, manifest, results
from qhyvit_device.bench import BenchSettings, bench
from qhyvit_device.errors import CheckFailedError, DeviceError, InputError
from qhyvit_device.interpreter import TfliteFile
from qhyvit_device.manifest import Output
from qhyvit_device.results import Outputs
from tests._bundles import COLOURS, device, found, make_bundle, picture

SCHEMA_1 = Path(__file__).parent / "schema1"


def changed(bundle, folder, change):
    """A copy whose manifest a function has changed."""
    shutil.copytree(bundle, folder)
    raw = json.loads((folder / "manifest.json").read_text())
    change(raw)
    (folder / "manifest.json").write_text(json.dumps(raw))
    return folder


@pytest.mark.parametrize(("name", "change", "words"), [
    ("several", lambda r: r["outputs"].pop(), "outputs are not those"),
    ("several", lambda r: r["outputs"].append({**r["outputs"][0], "name": "more"}), "outputs are not those"),
    ("several", lambda r: r["outputs"].reverse(), "outputs are not those"),
    ("several", lambda r: r["outputs"][1].update(scale=0.5), "outputs are not those"),
    ("several", lambda r: r["outputs"][1].update(zero_point=0), "outputs are not those"),
    ("several", lambda r: r["outputs"][1].update(dtype="uint8"), "outputs are not those"),
    ("several", lambda r: r["outputs"][0].update(shape=[1, 4, 2, 6]), "outputs are not those"),
    ("segment", lambda r: r["outputs"][0].update(shape=[1, 3, 4, 4]), "outputs are not those"),
    ("several", lambda r: r.update(task="segment"), "has a labels_file"),
    ("classify", lambda r: r.update(task="multilabel", labels_file=None), "has a labels_file"),
    ("classify", lambda r: r.update(task="regress", labels_file="test.png"), "labels for 3 classes"),
    ("segment", lambda r: r.update(labels_file="test.png"), "labels for 3 classes"),
])  # fmt: skip
def test_what_the_model_does_not_give_is_refused(bundles, tmp_path, name, change, words):
    with pytest.raises(DeviceError, match=words):
        Model.load(changed(bundles[name], tmp_path / "b", change))


def test_axes_of_one_element_are_no_matter(bundles, tmp_path, photo):
    folder = changed(bundles["embed"], tmp_path / "b", lambda r: r["outputs"][0].update(shape=[1, 1, 1, 3]))
    model = Model.load(folder)
    assert model.run(model.prepare(photo))["embedding"].shape == (1, 1, 1, 3)


def test_a_self_test_looks_at_every_output(bundles, tmp_path):
    def later(raw):
        raw["test"]["codes"][-1] += 30

    with pytest.raises(CheckFailedError, match="differ by up to 30"):
        info.self_test(Model.load(changed(bundles["several"], tmp_path / "b", later)))
    with pytest.raises(CheckFailedError, match="54 codes, the manifest holds 27"):
        info.self_test(Model.load(changed(bundles["several"], tmp_path / "c", lambda r: r["test"]["codes"].pop(27) and
                                          r["test"].update(codes=r["test"]["codes"][:27]))))  # fmt: skip


def test_a_self_test_of_very_many_codes_keeps_some(tmp_path, monkeypatch):
    monkeypatch.setattr("qhyvit.bundle.MOST_TEST_CODES", 20)
    test = manifest.load(make_bundle(tmp_path / "b", "several") / "manifest.json").test
    assert (len(test.codes), test.step) == (18, 3)
    assert info.self_test(Model.load(tmp_path / "b"))["equal_codes"] == 1.0


def test_floats_are_tested_in_steps():
    values = np.array([[0.5, -0.25, 1e30, -np.inf, np.nan]], np.float32)
    outputs = Outputs([Output("x", (1, 5), "float32", None, None)], [values])
    assert outputs.test_codes().tolist() == [512, -256, 2**31, -(2**31), 0]
    assert outputs.test_codes(2).tolist() == [512, 2**31, 0]


@pytest.mark.parametrize("read", [
    lambda o: results.predictions(o, COLOURS, several=False), lambda o: results.values(o, []), results.embedding,
    lambda o: results.segmentation(o, COLOURS, 4, 4),
])  # fmt: skip
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_an_error(read, value):
    codes = np.full((1, 2, 2, 3), value, np.float32)
    with pytest.raises(InputError, match="no numbers"):
        read(Outputs([Output("x", codes.shape, "float32", None, None)], [codes]))


def test_figures_of_what_is_no_number_are_none():
    from qhyvit_device.commands.run import _figures

    assert _figures(np.array([1, np.nan, 2], np.float32)) == {"min": None, "max": None, "mean": None}
    assert _figures(np.array([1, np.inf], np.float32)) == {"min": 1.0, "max": None, "mean": None}


def where_model() -> bytes:
    """WHERE: as many rows as the input has elements above 0."""
    from qhyvit.tflite import flatbuffer

    def tensor(name, shape, kind):
        t = schema.TensorT()
        t.name, t.shape, t.type, t.buffer = name, shape, kind, 0
        return t

    graph, operator, code, whole = schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT(), schema.ModelT()
    graph.tensors = [tensor("x", [1, 2, 2, 3], schema.TensorType.FLOAT32), tensor("y", [5, 4], schema.TensorType.INT64)]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.WHERE
    code.version = 1
    whole.version, whole.operatorCodes, whole.subgraphs, whole.buffers = 3, [code], [graph], [schema.BufferT()]
    return flatbuffer.pack(whole)


def test_an_output_whose_size_depends_on_the_input_is_refused():
    file = TfliteFile(where_model(), "w")
    with pytest.raises(InputError, match="its size must not depend on the input"):
        file.invoke(np.ones((1, 2, 2, 3), np.float32))


def test_old_bundles_do_what_they_did(tmp_path, capsys, photo):
    """Written by the version before: one output, no task."""
    code, out, _ = device(capsys, "info", SCHEMA_1, "--json")
    assert code == 0
    assert json.loads(out[0])["self_test"]["worst_difference"] <= info.OTHER_MACHINE_TOLERANCE
    assert found(capsys, "classify", SCHEMA_1, SCHEMA_1 / "test.png", "--resize-mode", "squash")["predictions"] == [
        {"label": name, "index": i, "probability": pytest.approx(p, abs=0.001)}
        for name, i, p in (("blue", 2, 0.369), ("red", 0, 0.327), ("green", 1, 0.304))
    ]  # fmt: skip
    assert device(capsys, "embed", SCHEMA_1, photo)[2][0].endswith("use qhyvit-device classify")
    assert device(capsys, "run", SCHEMA_1, photo)[0] == 0
    assert bench([SCHEMA_1], BenchSettings(1, 0.0, 0), memory=False)["models"][0]["inference"]["count"] == 1
    assert Model.load(SCHEMA_1).run(np.zeros((8, 8, 3), np.int8))["logits"].shape == (1, 3)


def test_an_old_bundle_is_replaced_by_a_new_one(bundles, tmp_path):
    from qhyvit_device import update

    shutil.copytree(SCHEMA_1, tmp_path / "b")
    update.update(tmp_path / "b", bundles["segment"], downgrade=True)
    assert Model.load(tmp_path / "b").manifest.task == "segment"
    update.go_back(tmp_path / "b")
    assert (tmp_path / "b" / "manifest.json").read_bytes() == (SCHEMA_1 / "manifest.json").read_bytes()


def test_the_new_commands_need_no_torch_and_trust_once(bundles, photo, tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None; from qhyvit_device.cli import main; b, p, o = sys.argv[1:]\n"
        "sys.exit(main(['segment', b, p, '--draw', o, '--trust', 'once']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundles["segment"]), str(photo), str(tmp_path / "o.png")],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o.png").is_file()


def test_threads_share_a_model_of_several_outputs(bundles, photo):
    model = Model.load(bundles["several"])
    feeds = [model.prepare(picture([letter])) for letter in "rgbWK"]
    expected, wrong = [model.run(x).test_codes() for x in feeds], []

    def work():
        for _ in range(40):
            for x, codes in zip(feeds, expected, strict=True):
                if not np.array_equal(model.run(x).test_codes(), codes):
                    wrong.append(x)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_control_characters_of_names_are_escaped(bundles, photo, tmp_path, capsys):
    evil = "\x1b[2J\u202e"
    folder = changed(bundles["several"], tmp_path / "b", lambda r: r["outputs"][0].update(name=evil))
    _, out, err = device(capsys, "run", folder, photo)
    _, more, _ = device(capsys, "info", folder)
    assert all(line.isprintable() for line in (*out, *more, *err))
    assert any("\\x1b[2J" in line for line in out)
