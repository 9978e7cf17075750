"""Commands on bundles of every task: which reads which, what is written, watching, and what cannot be."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qhyvit_device import LiveModel, Model, files, manifest
from qhyvit_device.bench import BenchSettings, bench
from qhyvit_device.commands.shared import images
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.manifest import Output
from qhyvit_device.profile import profile
from qhyvit_device.results import Outputs
from tests._bundles import COMMANDS, NAMES, SIZE, device, found, picture, saved


def test_run_prints_and_writes_every_output(bundles, photo, tmp_path, capsys):
    other, out = saved(picture(["K"]), tmp_path / "k.png"), tmp_path / "o.npz"
    code, lines, _ = device(capsys, "run", bundles["several"], photo, other, "--out", out)
    assert code == 0
    assert lines[1] == "  map  int8 [1, 4, 4, 3]  min 0  max 1  mean 0.5"
    assert lines[3] == "  steep  int8 [1, 3]  min -1.5  max 1.5  mean 0"
    assert len(lines) == 8
    with np.load(out, allow_pickle=False) as written:
        assert {name: (written[name].shape, written[name].dtype.name) for name in written} == {
            "map": ((2, 4, 4, 3), "float32"), "means": ((2, 3), "float32"), "steep": ((2, 3), "float32"),
        }  # fmt: skip
        assert written["steep"].tolist() == [[1.5, -1.5, 0.0], [-3.0, -3.0, -3.0]]
        np.testing.assert_allclose(written["means"], [[0.75, 0.25, 0.5], [0, 0, 0]], atol=0.002)
    got = found(capsys, "run", bundles["several"], photo)["outputs"][2]
    assert got == {"name": "steep", "shape": [1, 3], "dtype": "int8", "min": -1.5, "max": 1.5, "mean": 0.0}


def test_outputs_of_any_name_are_written(tmp_path):
    """numpy's savez has options of its own called file and allow_pickle."""
    from qhyvit_device.commands.run import _Outputs

    reader = _Outputs(SimpleNamespace(out=tmp_path / "o.npz", watch=None))
    for name in ("file", "allow_pickle", "a:b c", "é"):
        reader._values[name] = [np.full((1, 2), len(name), np.float32)]
    reader._values["scalar"] = [np.float32(1).reshape(()), np.float32(2).reshape(())]
    reader.end()
    with np.load(tmp_path / "o.npz", allow_pickle=False) as written:
        assert sorted(written) == ["a:b c", "allow_pickle", "file", "scalar", "é"]
        assert written["allow_pickle"].tolist() == [[12, 12]]
        assert written["scalar"].tolist() == [1, 2]


def test_outputs_of_a_model_are_named_and_dequantised(bundles, photo):
    model = Model.load(bundles["several"])
    outputs = model.run(model.prepare(photo))
    assert list(outputs) == ["map", "means", "steep"]
    assert outputs["steep"].dtype == np.int8
    assert outputs["steep"].tolist() == [[24, -24, 0]]
    assert outputs.dequantized("steep").tolist() == [[1.5, -1.5, 0.0]]
    assert outputs.dequantized().shape == outputs["map"].shape == (1, 4, 4, 3)
    with pytest.raises(KeyError):
        outputs.dequantized("logits")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32])
def test_values_are_those_of_float64_rounded_once(dtype):
    limits, scale = np.iinfo(dtype), float(np.float32(0.003719))
    codes = np.linspace(limits.min, limits.max, 1001).astype(dtype)
    got = Outputs([Output("x", codes.shape, codes.dtype.name, scale, -77)], [codes]).dequantized()
    assert got.dtype == np.float32
    assert np.array_equal(got, ((codes.astype(np.float64) + 77) * scale).astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_info_knows_every_task(bundles, name, capsys):
    code, out, _ = device(capsys, "info", bundles[name], "--json")
    facts = json.loads(out[0])
    assert code == 0
    assert facts["self_test"]["equal_codes"] == 1.0
    assert ("same_decision" in facts["self_test"]) == (name in ("classify", "one"))
    assert facts["task"] == manifest.load(bundles[name] / "manifest.json").task
    assert ("classes" in facts) == (COMMANDS[name] in ("classify", "segment") and name != "regress")


def test_a_bench_knows_every_task(bundles):
    measured = bench([*bundles.values()], BenchSettings(1, 0.0, 0), memory=False)["models"]
    assert [(m["model"], m["postprocess"]["count"]) for m in measured] == [(name, 1) for name in NAMES]


def test_a_profile_knows_several_outputs(bundles):
    assert len(profile(bundles["several"] / "model.tflite", 1, 2).events) >= 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", ["classify", "embed", "segment", "run"])
def test_a_command_for_another_task_says_which_to_use(bundles, photo, command, name, capsys):
    code, out, err = device(capsys, command, bundles[name], photo)
    if command in ("run", COMMANDS[name]):
        assert (code, err) == (0, [])
    else:
        assert (code, out, len(err)) == (2, [], 1)
        assert err[0].endswith(f", not for {command}: use qhyvit-device {COMMANDS[name]}")


def test_methods_of_a_model_refuse_another_task(bundles, photo):
    for name, call in (("embed", Model.classify), ("classify", Model.embed), ("several", Model.segment)):
        with pytest.raises(InputError, match="use qhyvit-device"):
            call(Model.load(bundles[name]), photo)
    with pytest.raises(InputError, match="values, no classes"):
        Model.load(bundles["regress"]).classify(photo)
    assert Model.load(bundles["segment"]).segment(photo).classes.shape == (SIZE, SIZE)


@pytest.mark.parametrize("words", [
    ("classify", "classify", "P", "--threshold", "0.5"), ("classify", "multilabel", "P", "--threshold", "1.5"),
    ("classify", "multilabel", "P", "--threshold", "nan"), ("classify", "multilabel", "P", "--threshold", "x"),
    ("classify", "multilabel", "P", "--threshold", "0.5", "--top", "2"), ("embed", "embed", "P", "--top", "0"),
    ("embed", "embed", "P", "--top", "2"), ("embed", "embed", "P", "--gallery", "nothing"),
    ("embed", "embed", "P", "--out", "D"), ("embed", "embed", "P", "--out", "nothing/e.npy"),
    ("embed", "embed", "--watch", "D", "--out", "e.npy"), ("run", "several", "--watch", "D", "--out", "o.npz"),
    ("run", "several", "P", "--out", "D"), ("segment", "segment", "P", "--draw", "D"),
    ("segment", "segment", "P", "--draw", "nothing/o.png"), ("segment", "segment", "--watch", "D", "--draw", "o.png"),
    ("segment", "segment", "P", "P", "--draw", "o.png"), ("segment", "segment", "D", "--draw", "o.png"),
    ("embed", "embed"), ("segment", "segment", "P", "--watch", "D"), ("run", "nothing", "P"),
    ("run", "several", "N"), ("segment", "segment", "N", "--draw", "o.png"), ("embed", "embed", "N", "--out", "e.npy"),
])  # fmt: skip
def test_what_cannot_be_is_one_line_and_nothing_is_written(bundles, photo, tmp_path, words, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "D").mkdir()
    (tmp_path / "N").write_text("no picture")
    places = {"P": photo, **bundles}
    before = sorted(p.name for p in tmp_path.rglob("*"))
    code, out, err = device(capsys, words[0], *(places.get(word, word) for word in words[1:]))
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith("qhyvit-device: error: ")
    assert "fault of qhyvit" not in err[0]
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_results_that_cannot_be_written_leave_nothing(tmp_path, monkeypatch):
    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DeviceError, match="No space left"):
        files.write(tmp_path / "x.npy", b"abc")
    assert list(tmp_path.iterdir()) == []


# --- watching and updating ---


def watched(monkeypatch, *frames):
    """``--watch`` sees these pictures, or does what a function does and sees what it gives."""
    pictures = ((f"{i}.png", f() if callable(f) else f) for i, f in enumerate(frames))
    monkeypatch.setattr("qhyvit_device.sources.frames", lambda _: pictures)


@pytest.mark.parametrize(("command", "name", "line"), [
    ("embed", "embed", "0.png  3 values: 1.0000 0.0000 0.0000"), ("classify", "regress", "0.png  4.5  redness"),
    ("classify", "multilabel", "0.png  red 95 %"), ("segment", "segment", "0.png  red 100 %"),
    ("run", "regress", "0.png  values  int8 [1, 1]  min 4.5  max 4.5  mean 4.5"),
])  # fmt: skip
def test_watching_gives_a_line_an_image(bundles, command, name, line, monkeypatch, capsys):
    watched(monkeypatch, picture(["r"]), InputError("bad one"), picture(["K"]))
    code, out, err = device(capsys, command, bundles[name], "--watch", "somewhere", "--frames", "3")
    assert (code, len(out), out[0]) == (0, 2, line)
    assert err == ["watching somewhere; Ctrl-C ends it", "qhyvit-device: error: bad one"]
    watched(monkeypatch, picture(["r"]))
    _, out, _ = device(capsys, command, bundles[name], "--watch", "somewhere", "--json")
    assert {"image", "ms"} < set(json.loads(out[0]))


def test_a_watch_draws_each_image_again(bundles, tmp_path, monkeypatch, capsys):
    watched(monkeypatch, picture(["r"]), picture(["g"]))
    code, out, _ = device(capsys, "segment", bundles["segment"], "--watch", "x", "--draw", tmp_path)
    assert code == 0
    assert out[1] == f"1.png  green 100 %, drawn: {tmp_path / '1.png.png'}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.png.png", "1.png.png"]


def replaced(folder, by):
    shutil.rmtree(folder)
    shutil.copytree(by, folder)
    (folder / "manifest.json").touch()


def test_a_gallery_belongs_to_the_model_that_is_used(bundles, gallery, tmp_path, monkeypatch, capsys):
    """After an update its pictures are embedded again, by the new model."""
    shutil.copytree(bundles["embed"], tmp_path / "b")
    made = []
    monkeypatch.setattr(images.ImageReader, "open", lambda self, model: made.append(model))

    def update():
        replaced(tmp_path / "b", bundles["embed"])
        return picture(["r"])

    watched(monkeypatch, picture(["r"]), picture(["r"]), update, picture(["r"]))
    code, out, _ = device(capsys, "embed", tmp_path / "b", "--watch", "x", "--gallery", gallery, "--top", "1")
    assert (code, len(out)) == (0, 4)
    assert out[3].endswith("1.0000  anna/1.png")
    assert len(made) == len(set(map(id, made))) == 2


def test_an_update_to_another_task_is_passed_over(bundles, tmp_path):
    shutil.copytree(bundles["embed"], tmp_path / "b")
    live = LiveModel(tmp_path / "b")
    replaced(tmp_path / "b", bundles["segment"])
    assert live.current().manifest.task == "embed"
    assert "its task is segment, and was embed" in str(live.refused)
    replaced(tmp_path / "b", bundles["embed"])
    assert live.current().manifest.task == "embed"
    assert live.refused is None
