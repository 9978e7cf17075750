"""``qhyvit-device`` as a user meets it: many images with broken ones among them, options, faults, broken runtimes."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from qhyvit_device import cli, interpreter
from qhyvit_device.errors import DeviceError, InputError, said
from qhyvit_device.runner import Model, TfliteFile


@pytest.fixture
def fifty(tmp_path):
    folder = tmp_path / "fifty"
    folder.mkdir()
    for i in range(50):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (folder / "._00.png").write_bytes(b"\0\5\26\7")
    return folder


def test_broken_images_cost_nothing_but_themselves(bundle, fifty, capsys):
    (fifty / "07.png").write_bytes((fifty / "07.png").read_bytes()[:300])
    (fifty / "31.png").write_text("no picture")
    assert cli.main(["classify", str(bundle), str(fifty), "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert len(found["results"]) == 48
    assert [e["image"][-6:] for e in found["errors"]] == ["07.png", "31.png"]
    assert [line.split(": ")[:2] for line in err.splitlines()] == [["qhyvit-device", "error"]] * 2
    assert cli.main(["classify", str(bundle), str(fifty)]) == 1
    out, err = capsys.readouterr()
    assert out.count(str(fifty)) == 48
    assert "07.png: cannot read" in err
    assert "31.png: not an image" in err


def test_nothing_but_broken_images_is_exit_code_2(bundle, tmp_path, capsys):
    (tmp_path / "a.jpg").write_text("no picture")
    assert cli.main(["classify", str(bundle), str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["results"] == []


def test_good_images_alone_have_no_errors(bundle, fifty, capsys):
    assert cli.main(["classify", str(bundle), str(fifty / "03.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["errors"] == []


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "YCbCr", "RGBA", "LA", "1", "I", "F"])
def test_classify_takes_an_image_of_any_mode(bundle, mode, tmp_path):
    model = Model.load(bundle)
    image = Image.open(bundle / "test.png").convert("L" if mode in "IF" else "RGB").convert(mode)
    if mode == "I":
        image = image.point(lambda v: v * 257)
    shown = image if mode in ("L", "P", "LA", "RGBA", "1", "I") else image.convert("L" if mode == "F" else "RGB")
    shown.save(tmp_path / "a.png")
    assert (
        model.classify(image, 10)
        == model.classify(tmp_path / "a.png", 10)
        == model.classify(str(tmp_path / "a.png"), 10)
    )


def test_what_classify_cannot_take_is_refused(bundle):
    model, image = Model.load(bundle), Image.new("RGB", (9, 9))
    for wrong in ({"top": 0}, {"top": -3}, {"mode": "fold"}):
        with pytest.raises(InputError):
            model.classify(image, **wrong)
    with pytest.raises(InputError, match=r"arrays are not resized, pictures are \(Image\.fromarray\)"):
        model.classify(np.zeros((9, 9, 3), np.uint8))


@pytest.mark.parametrize("options", [
    ("bench", "B", "--runs", "-5"), ("bench", "B", "--runs", "0"), ("bench", "B", "--warmup", "-1"),
    ("bench", "B", "--threads", "0"), ("bench", "B", "--threads", "1,-4"), ("bench", "B", "--threads", "100000"),
    ("bench", "B", "--turn", "0"), ("bench", "B", "--seconds", "-1"), ("bench", "B", "--seconds", "nan"),
    ("bench", "B", "--seconds", "inf"), ("bench", "B", "--sustained", "-0.5"), ("bench", "B", "--cpus", "-1"),
    ("bench", "B", "--cpus", ""), ("bench", "B", "--runs", "9" * 5000), ("bench", "B", "--runs", "1,2"),
    ("bench", "B", "--runs", "\u0661"), ("classify", "B", "a.png", "--top", "0"),
    ("classify", "B", "a.png", "--top", "-2"),
    ("classify", "B", "--watch", "d", "--frames", "-1"), ("classify", "B", "a.png", "--threads", "1,2"),
    ("info", "B", "--threads", "0"),
])  # fmt: skip
def test_numbers_out_of_bounds_are_refused_with_what_is_allowed(options, capsys):
    assert cli.main(list(options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("qhyvit-device: error: argument")


def test_any_exception_is_one_line_and_debug_shows_where(bundle, monkeypatch, capsys):
    def fault(*_, **__):
        raise KeyError("unexpected")

    monkeypatch.setattr(Model, "of", fault)
    assert cli.main(["info", str(bundle)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("qhyvit-device: error: KeyError: 'unexpected'; this is a fault of qhyvit")
    for debug in (["--debug", "info", str(bundle)], ["info", str(bundle), "--debug"]):
        assert cli.main(debug) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[0].startswith("Traceback")
        assert lines[-1].startswith("qhyvit-device: error: ")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "of", stop)
    assert cli.main(["info", str(bundle)]) == 130


class Broken:
    """An interpreter whose extension was built for another numpy: it fails when it is made."""

    def __init__(self, **_):
        raise SystemError("<built-in method CreateWrapperFromBuffer> returned a result with an exception set\nmore")


def runtime(monkeypatch, name, content):
    """Put a runtime's module in place: a class, or an exception that importing it raises; None: not installed."""
    module = {n: m for n, m, _ in interpreter.RUNTIMES}[name]
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), None if content is None else ModuleType(parts[i - 1]))
    if content is not None:
        made = sys.modules[module]
        if isinstance(content, Exception):
            monkeypatch.delitem(sys.modules, module)
            finder = type(
                "Finder", (), {"find_spec": staticmethod(lambda n, *_: _raise(content) if n == module else None)}
            )
            monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
        else:
            made.Interpreter = content


def _raise(error):
    print("A module that was compiled using NumPy 1.x cannot be run\nTraceback", file=sys.stderr)
    raise error


@pytest.fixture(autouse=True)
def _forget_broken(monkeypatch):
    monkeypatch.setattr(interpreter, "_broken", {})


def test_a_library_that_finds_no_room_is_no_fault_of_qhyvit():
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    assert said(error).startswith("out of memory; ")
    assert "a fault of qhyvit" in said(ImportError("libtorch_cpu.so: undefined symbol"))


@pytest.mark.parametrize("fails", [
    Broken, SystemError("initialization of _pywrap failed\nmore"),
    ImportError("numpy.core.multiarray failed to import"),
    AttributeError("_ARRAY_API not found"), ModuleNotFoundError("No module named 'numpy.core'", name="numpy.core"),
])  # fmt: skip
def test_a_runtime_that_fails_is_passed_over(bundle, monkeypatch, fails, capsys):
    from ai_edge_litert.interpreter import Interpreter

    runtime(monkeypatch, "ai-edge-litert", fails)
    runtime(monkeypatch, "tensorflow", Interpreter)
    file = TfliteFile.load(bundle / "model.tflite")
    assert file.runtime == "tensorflow"
    assert interpreter.find_interpreter()[1] == "tensorflow"
    assert capsys.readouterr().err == ""


def test_where_no_runtime_works_one_line_says_why(bundle, monkeypatch, capsys):
    runtime(monkeypatch, "ai-edge-litert", None)
    runtime(monkeypatch, "tensorflow", None)
    runtime(monkeypatch, "tflite-runtime", Broken)
    assert cli.main(["info", str(bundle)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "tflite-runtime: SystemError: <built-in method" in said
    assert "pip install ai-edge-litert" in said
    with pytest.raises(DeviceError, match="no TFLite interpreter works"):
        interpreter.find_interpreter()
