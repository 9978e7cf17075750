"""Random input to the host's command line: one clear line or the right answer; ``make fuzz`` tries many more."""

import contextlib
import io
import os
import shutil
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qhyvit import cli
from qhyvit.errors import ExportError
from qhyvit.methods import all_methods, method

CASES = int(os.environ.get("QHYVIT_FUZZ", "25"))
MANY = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="QHYVIT_FUZZ" not in os.environ,
)
FAULT = "this is a fault of qhyvit"
NET = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, classes)
        self.preprocess = {"input_size": 32}
    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))

def make():
    return Net()
"""
FACTORIES = [
    "return Net()",
    "return None",
    "return 3",
    "return Net",
    "return [Net()]",
    "return 1 / 0",
    "return {}['x']",
    "return undefined",
    "sys.exit(3)",
    "sys.exit('bye')",
    "raise SystemExit",
    "raise RecursionError",
    "raise MemoryError",
    "raise StopIteration",
    "return make_one()",
    "import no_such_module",
    "print('x' * 9); return Net()",
    "return nn.Identity()",
    "return nn.Linear(3, 3)",
    "return Net().head",
    "net = Net(); net.forward = None; return net",
    "net = Net(); net.forward = lambda x: 3; return net",
    "net = Net(); net.forward = lambda x: x; return net",
    "net = Net(); net.forward = lambda x: sys.exit(5); return net",
    "net = Net(); net.forward = lambda: x; return net",
    "import argparse; p = argparse.ArgumentParser(); p.add_argument('x'); p.parse_args(); return Net()",
    "return torch.jit.script(nn.Conv2d(3, 4, 3))",
    "return Net().half()",
    "return Net().double()",
    "return Net().to('meta')",
    "def f(): return f()\n    return f()",
    "sys.stderr.write('noise\\n' * 3); return Net()",
    "sys.argv.clear(); return Net()",
    "sys.stdout.close(); return Net()",
    "return Net(0)",
    "return",
    "exit()",
    "quit(1)",
    "assert False",
    "yield Net()",
]
WORDS = [
    "",
    "-1",
    "0",
    "1",
    "3",
    "4294967296",
    "9" * 400,
    "nan",
    "inf",
    "1e9",
    "true",
    "None",
    "é",
    "\u2028",
    "crop",
    "x=1",
    "integer",
    "cpu",
    "..",
    "/",
    "a b",
    "-",
    "--",
    "[bold]",
    "%s",
    "{}",
    "\x1b[31m",
]
OPTIONS = {
    "build": [
        "--method",
        "--count",
        "--seed",
        "--bits",
        "--profile",
        "--resize-mode",
        "--set",
        "--classes",
        "--input-size",
        "--weights",
        "--labels",
        "--latency-profile",
        "--random-weights",
        "--no-int16",
        "--model-py",
        "--force",
        "--config",
        "--print-config",
        "--measure",
        "--min-agreement",
    ],
    "calibrate": ["--method", "--count", "--seed", "--bits", "--profile", "--resize-mode", "--set"],
    "verify": ["--count", "--seed", "--resize-mode", "--json"],
    "export": ["--weights", "--classes", "--input-size", "--seed"],
    "convert": ["--force"],
    "bundle": ["--labels", "--force"],
    "inspect": ["--graph", "--tensors", "--json"],
    "evaluate": ["--labels", "--float", "--resize-mode", "--workers", "--json"],
    "sweep": ["--workers", "--retries", "--json"],
    "report": ["--work", "--count", "--bench", "--labels"],
    "compare": ["--html", "--bench", "--images"],
    "bench": ["--ssh", "--threads", "--runs", "--seconds", "--turn", "--sustained"],
    "latency-profile": ["--force"],
    "wheelhouse": ["--python", "--machine"],
    "bundle-image": ["--platform", "--name"],
    "bundle-tarball": ["--python"],
    "methods": ["--json"],
    "models": ["--json"],
    "nothing": [],
}
FLAGS = {"--print-config", "--json", "--graph", "--tensors", "--force", "--no-int16", "--random-weights"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a few pictures, a factory and a stand-in for the exporter, which refuses every model."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "net.py").write_text(NET)
    (folder / "images").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr("qhyvit.models._export.export", _refuse)
        patch.setenv("PATH", str(folder))  # no ssh, no pip
        yield folder


def _refuse(*_, **__):
    raise ExportError("the exporter was reached")


def run(folder, *args):
    """The exit code and what stderr holds; the rules that hold for every input."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main([str(a) for a in args])
        except SystemExit as ended:
            code = ended.code
    said = err.getvalue()
    assert code in (0, 1, 2), (args, said)
    assert "Traceback" not in said, args
    if code == 2:
        assert said.splitlines()[-1].startswith("qhyvit: error: "), (args, said)
    left = [p.name for p in folder.iterdir() if p.name.startswith((".", "out")) and p.name != "out.work"]
    assert left == [], args
    shutil.rmtree(folder / "out.work", ignore_errors=True)
    return code, said


def build(folder, *args, model="net.py:make"):
    return run(folder, "build", model, "--images", "images", "--out", "out", "--method", "minmax", "--count", 2, *args)


def test_the_way_to_the_exporter_is_free(place):
    code, said = build(place)
    assert code == 2
    assert "the exporter was reached" in said


values = st.one_of(st.sampled_from(WORDS), st.text(max_size=12).filter(lambda t: "\0" not in t and t[:1] < "\ud800"))


@MANY
@given(st.data())
def test_options_of_every_command(place, data):
    command = data.draw(st.sampled_from(list(OPTIONS)))
    words = [command]
    needs = {"export": "--work", "calibrate": "--work", "convert": "--work", "verify": "--work", "bundle": "--work"}
    if command in needs:
        words += ["--work", "no-work"]
    if command in ("calibrate", "verify", "bundle", "build", "evaluate"):
        words += ["--images", data.draw(st.sampled_from(["images", "none", "net.py"]))]
    if command in ("build", "bundle", "sweep", "wheelhouse", "bundle-image", "bundle-tarball", "latency-profile"):
        words += ["--out", "out"]
    if command == "wheelhouse":
        words += ["--python", "2.7"]  # nothing is fetched
    for _ in range(data.draw(st.integers(0, 2))):
        words.append(data.draw(values.filter(lambda v: v not in ("..", "/", "-"))))
    for option in data.draw(st.lists(st.sampled_from(OPTIONS[command] or ["--help"]), max_size=3)):
        words += [option] if option in FLAGS or option == "--help" else [option, data.draw(values)]
    _, said = run(place, *words)
    assert FAULT not in said, words
    shutil.rmtree(place / "no-work", ignore_errors=True)


EVERY = [(m, name) for m in all_methods() for name in method(m).options]


@MANY
@given(st.sampled_from(EVERY), values)
def test_values_of_method_options(place, which, value):
    code, said = run(
        place,
        "build",
        "net.py:make",
        "--images",
        "images",
        "--out",
        "out",
        "--method",
        which[0],
        "--set",
        f"{which[1]}={value}",
    )
    assert code == 2
    assert FAULT not in said


@pytest.fixture(scope="module")
def originals(place):
    states, found = (
        [
            {
                "stem.weight": torch.ones(4, 3, 4, 4),
                "stem.bias": torch.zeros(4),
                "head.weight": torch.ones(4, 4),
                "head.bias": torch.zeros(4),
            }
        ],
        [],
    )
    states += [{"module." + k: v for k, v in states[0].items()}, {"state_dict": states[0], "epoch": np.float64(1)}]
    for state in states:
        stream = io.BytesIO()
        torch.save(state, stream)
        found.append(stream.getvalue())
    return found


@MANY
@given(st.data())
def test_weights_files(place, originals, data):
    content = bytearray(data.draw(st.sampled_from(originals)))
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        kind = data.draw(st.sampled_from(("set", "cut", "put")))
        if kind == "cut":
            del content[at : at + data.draw(st.integers(1, 400))]
        elif kind == "put":
            content[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        elif content:
            content[at] = data.draw(st.integers(0, 255))
    path = place / f"w{data.draw(st.sampled_from(['.pth', '.safetensors', '.bin', '']))}"
    path.write_bytes(content)
    code, said = build(place, "--weights", path)
    path.unlink()
    assert code == 2
    assert FAULT not in said


NUMBERS = count()


@pytest.mark.parametrize("body", FACTORIES)
def test_factories_that_give_odd_things(place, body):
    path = place / f"odd{next(NUMBERS)}.py"
    path.write_text(f"{NET}\ndef odd():\n    {body}\n")
    code, said = build(place, model=f"{path.name}:odd")
    assert code == 2
    assert FAULT not in said
    if "exit" in body.lower() or "quit" in body:
        assert path.name in said or "ended the program" in said


@MANY
@given(st.text(alphabet=" \n:()[]=.,+-*#'\"abcdefinorstuy0123456789\0é", max_size=60))
def test_files_that_are_no_python(place, text):
    path = place / f"text{next(NUMBERS)}.py"
    path.write_text(text)
    code, _ = build(place, model=f"{path.name}:make")
    path.unlink()
    assert code == 2


NAMES = [
    "._a.jpg",
    ".x.png",
    "a.jpg",
    "b.PNG",
    "c.webp",
    "d.bmp",
    "e.ppm",
    "f.jpeg",
    "notes.txt",
    "preprocess.json",
    "labels.csv",
    "é.png",
    "a b.png",
    "[x].jpg",
]


@MANY
@given(st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=60), min_size=1, max_size=5), st.booleans())
def test_folders_with_odd_files(place, files, with_good):
    folder = place / "odd-images"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if with_good:
        Image.new("LA", (5, 7)).save(folder / "good.png")
    code, said = run(place, "build", "net.py:make", "--images", folder, "--out", "out", "--method", "minmax")
    shutil.rmtree(folder)
    assert code == 2
    assert FAULT not in said
    usable = any(
        Path(n).suffix.lower() in (".jpg", ".png", ".webp", ".bmp", ".ppm", ".jpeg") and n[0] != "." for n in files
    )
    if with_good and not usable:
        assert "the exporter was reached" in said
