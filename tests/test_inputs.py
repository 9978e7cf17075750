"""What the user brings and asks for, on the way through the command line: one build of a tiny network, and refusals."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import qhyvit
from qhyvit import stages
from qhyvit.config import ModelConfig
from qhyvit.data import VERIFY_IMAGES
from qhyvit.errors import ExportError, QhyvitError, UsageError
from qhyvit.models.shared.source import check_weights, open_source
from qhyvit.work import FACTS, FLOAT, Work
from qhyvit_device import manifest
from qhyvit_device.runner import Model
from tests._commands import said

NET = """
import os
import subprocess
import sys
import torch
from torch import nn

print("loading")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)
        self.preprocess = {"input_size": 32, "resize": 40}
        print("made")
        os.write(1, b"by descriptor\\n")

    def forward(self, x):
        print("forward")
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))

def make():
    return Net()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "net.py").write_text(NET)
    for name, size in (("train", (40, 60)), ("val", (60, 40))):
        (folder / name).mkdir()
        for i in range(4):
            pixels = np.random.default_rng((len(name), i)).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    (folder / "val" / "labels.csv").write_text("file,class_index\n" + "".join(f"{i}.png,{i}\n" for i in range(4)))
    return folder


@pytest.fixture(scope="module")
def built(place):
    """A build by a noisy factory with squashed images: its result, stdout and stderr."""
    command = [
        sys.executable,
        "-m",
        "qhyvit",
        "build",
        "net.py:make",
        "--images",
        "train",
        "--out",
        "B",
        "--json",
        "--method",
        "minmax",
        "--count",
        "3",
        "--resize-mode",
        "squash",
        "--min-agreement",
        "0",
    ]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_stdout_holds_the_object_alone_though_the_model_prints(built):
    assert built.returncode == 0, built.stderr
    assert "checks" in json.loads(built.stdout)
    for word in ("loading", "made", "by descriptor"):
        assert word in built.stderr


def test_the_resize_mode_of_the_build_is_in_the_bundle(place, built, capfd):
    found = manifest.load(place / "B" / "manifest.json")
    assert (found.preprocess.mode, found.preprocess.resize) == ("squash", 40)
    config = found.created_by["config"]
    assert config["data"] == {"images": "train", "count": 3, "resize_mode": "squash"}
    assert config["model"]["name"] == "net.py:make"
    assert config["method"] == {
        "name": "minmax", "options": {"fast_softmax": True, "fast_gelu": True, "observer": "minmax"}, "seed": 0,
        "bits": 8, "size": None, "output_weights": {},
    }  # fmt: skip
    assert config["target"] == {"name": "litert", "integer": True}
    assert str(place) not in json.dumps(config)
    model, image = Model.load(place / "B"), place / "val" / "0.png"
    assert np.array_equal(model.prepare(image), model.prepare(image, "squash"))
    assert not np.array_equal(model.prepare(image), model.prepare(image, "crop"))
    counted = {}
    for mode in ((), ("--resize-mode", "squash")):
        code, out, lines = said(capfd, "evaluate", place / "B", "--images", place / "val", "--json", *mode)
        assert code == 0, lines
        counted[mode] = json.loads(out)
    first, second = counted.values()
    assert first == second
    assert first["resize_mode"] == "squash"


def test_verification_takes_the_resize_mode_of_the_calibration(place, built):
    work, seen = Work(place / "B.work"), []
    work.log = seen.append
    stages.verify(work, place / "train", VERIFY_IMAGES, 0, None, 0.0)
    assert seen == ["verify: unchanged, kept"]


def test_versions_of_a_bundle_name_what_made_it(place, built):
    found = manifest.load(place / "B" / "manifest.json").versions
    assert {"torch", "timm", "litert-torch", "ai-edge-litert", "numpy", "qhyvit"} <= set(found)


@pytest.mark.parametrize("model", ["mobilevit_xxs", "timm/edgenext_xx_small"])
@pytest.mark.parametrize("command", ["build", "export"])
def test_a_name_without_weights_is_refused_before_the_work(place, capfd, command, model, tmp_path):
    out = ("--out", tmp_path / "o", "--images", place / "train") if command == "build" else ("--work", tmp_path / "w")
    code, _, lines = said(capfd, command, model, *out)
    assert code == 2
    assert lines == [
        f"qhyvit: error: {model} needs --weights FILE; --pretrained takes those that timm publishes, --random-weights "
        "draws some for a trial"
    ]
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_those_of_names_and_never_beside_others(place, tmp_path):
    check_weights("mobilevit_xxs", None, random_weights=True)
    check_weights("mobilevit_xxs", tmp_path / "w", random_weights=False)
    check_weights("net.py:make", None, random_weights=False)
    check_weights(nn.Linear(2, 2), None, random_weights=False)
    for model, weights, words in (
        ("net.py:make", None, "keeps its own"),
        (nn.Linear(2, 2), None, "keeps its own"),
        ("mobilevit_xxs", tmp_path / "w", "give one of"),
        ("resnet50", None, "known: "),
        ("timm/none", None, "timm has no model"),
    ):
        with pytest.raises(UsageError, match=words):
            check_weights(model, weights, random_weights=True)
    with pytest.raises(UsageError, match="--random-weights"):
        qhyvit.build("mobilevit_xxs", place / "train", tmp_path / "o")
    with pytest.raises(UsageError, match="--random-weights"):
        qhyvit.calibrate("mobilevit_xxs", place / "train")
    source = open_source("mobilevit_xxs", classes=3, size=64, random_weights=True)
    assert source.weights == "random"


def test_a_kept_export_with_random_weights_is_refused_without_the_option(place, tmp_path):
    work = Work(tmp_path)
    for name in (FLOAT, FACTS):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="--random-weights"):
        stages.export(work, ModelConfig("mobilevit_xxs"))


@pytest.mark.parametrize("count", ["2", "3"])
def test_every_bad_image_is_named_before_the_export(place, capfd, tmp_path, count, monkeypatch):
    import shutil

    folder = tmp_path / "images"
    shutil.copytree(place / "train", folder)
    (folder / "half.png").write_bytes((folder / "0.png").read_bytes()[:80])
    (folder / "notes.jpg").write_text("no picture")
    (folder / "._0.png").write_bytes(b"\0\5\26\7")
    monkeypatch.setattr("qhyvit.models.shared.source.open_source", None)
    where = ("--images", folder, "--out", tmp_path / "o", "--count", count)
    code, _, lines = said(capfd, "build", f"{place}/net.py:make", *where)
    assert code == 2
    assert "half.png" in lines[-1]
    assert "notes.jpg" in lines[-1]
    assert "._0" not in lines[-1]
    assert not (tmp_path / "o.work").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.exit(3)", r"own.py ended the program \(exit code 3\)"),
        ("print('usage: me', file=sys.stderr); sys.exit(2)", "exit code 2\\): usage: me"),
        (
            "import argparse; a = argparse.ArgumentParser(); a.add_argument('data'); a.parse_args()",
            "the following arguments are",
        ),
    ],
)
def test_a_factory_that_ends_the_program_is_named(tmp_path, body, words, capfd):
    path = tmp_path / "own.py"
    for text in (f"import sys\n{body}\ndef make(): return 3\n", f"import sys\ndef make():\n    {body}\n"):
        path.write_text(text)
        with pytest.raises(ExportError, match=words):
            open_source(f"{path}:make")
        assert capfd.readouterr() == ("", "")


def test_a_factory_sees_no_arguments_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["qhyvit", "build", "--images", "train"])
    (tmp_path / "own.py").write_text(
        "import argparse, torch\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--width', type=int, default=4)\n"
        "def make():\n    width = parser.parse_args().width\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, width))\n"
        "    net.preprocess = {'input_size': 2}\n    return net\n"
    )
    assert open_source(f"{tmp_path}/own.py:make").classes == 4
    assert sys.argv == ["qhyvit", "build", "--images", "train"]


FAULTS = {
    "KeyError: 'x'; this is a fault of qhyvit": KeyError("x"),
    "RuntimeError: red text; this is a fault": RuntimeError("\x1b[31mred text\x1b[0m\nand more\nlines"),
    "AssertionError; this is a fault": AssertionError(),
    "out of memory": MemoryError(),
    "No space left on device: a.txt": OSError(28, "No space left on device", "a.txt"),
    "the model's code ended the program (exit code 7)": SystemExit(7),
    "two lines": QhyvitError("two\nlines"),
}


@pytest.mark.parametrize("words", FAULTS)
def test_any_exception_is_one_line_and_debug_shows_where(words, monkeypatch, capfd):
    def fail(*_, **__):
        raise FAULTS[words]

    monkeypatch.setattr("qhyvit.models.all_families", fail)
    code, out, lines = said(capfd, "models")
    assert (code, out, len(lines)) == (2, "", 1)
    assert lines[0].startswith(f"qhyvit: error: {words}")
    for debug in (("--debug", "models"), ("models", "--debug")):
        code, _, lines = said(capfd, *debug)
        assert code == 2
        assert lines[0].startswith("Traceback")
        assert lines[-1].startswith(f"qhyvit: error: {words}")


def test_a_broken_pipe_ends_without_a_line(monkeypatch, capfd):
    def broken():
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("qhyvit.models.all_families", broken)
    assert said(capfd, "models")[::2] == (0, [])


def test_an_interruption_is_no_error(monkeypatch, capfd):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr("qhyvit.models.all_families", stop)
    assert said(capfd, "models") == (130, "", [])


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_timm_and_torchvision_import_behind_qhyvit():
    for name in ("timm", "torchvision"):
        done = python(f"import qhyvit, {name}; print({name}.__version__)")
        assert done.returncode == 0, done.stderr[-300:]


def test_operators_are_declared_only_where_torchvision_lacks_them():
    """A torchvision whose extension loads brings its own: declared twice they would end the process."""
    code = (
        "import qhyvit, torch, sys; from qhyvit import torchvision_stand_in as t\n"
        "assert t._Finder in sys.meta_path\n"
        "t.loads = lambda torch: True\n"
        "t.declare(); assert not t._declared and not hasattr(torch.ops.torchvision, 'nms')\n"
        "t.loads = lambda torch: False\n"
        "t.declare(); t.declare(); assert len(t._declared) == 1 and hasattr(torch.ops.torchvision, 'nms')\n"
        "import torchvision; assert t._Finder not in sys.meta_path"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr[-300:]


def test_a_missing_torch_is_no_hindrance():
    start = "import sys; sys.modules['torch'] = None; import qhyvit"
    assert python(f"{start}; from qhyvit import torchvision_stand_in; torchvision_stand_in.declare()").returncode == 0
    assert Path(qhyvit.__file__).is_file()
    assert torch.ops is not None
