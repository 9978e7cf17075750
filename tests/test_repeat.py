"""The same inputs give the same bytes: threads, hash seeds, locales, names and places of files, x86 levels."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import _tiny

PLAIN = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
# what torch and oneDNN use where a processor has no AVX-512; MKL, in one copy with torch, decides by itself
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
OTHER = {
    "threads": {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}, "hash seed": {"PYTHONHASHSEED": "123"},
    "locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"}, "AVX2": AVX2,
}  # fmt: skip
FILES = ("float.tflite", "folded.tflite", "plan.npz", "samples.npz", "model.tflite")


def build(place, environment, *options):
    """The files of a build in a process of its own: bytes by name, and of JSON what does not tell the time."""
    command = [sys.executable, "-m", "qhyvit", "build", *options, "--out", "out", "--work", "work"]
    place.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in {*AVX2, "LANG", "LC_CTYPE"}}
    done = subprocess.run(
        [*command, "--min-agreement", "0"], cwd=place, env={**kept, **PLAIN, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = {name: (place / "work" / name).read_bytes() for name in FILES}
    plan, verdict, manifest = (
        json.loads((place / name).read_text()) for name in ("work/plan.json", "work/verify.json", "out/manifest.json")
    )
    plan.pop("seconds")
    for name in ("plan.json", "export.json"):  # the time, and torch's last bits
        verdict["files"].pop(name)
    for check in verdict["checks"]:
        if check["name"] == "exported file computes the model":  # by torch, with its own last bits
            check.pop("detail")
    for name in ("command", "plan_sha256", "config"):  # where the images lie, and the time
        manifest["created_by"].pop(name)
    return {**found, "plan": plan, "verdict": verdict, "manifest": manifest}


def different(a, b):
    return [name for name in a if a[name] != b[name]]


def renamed(images, place, seed):
    """The same pictures under other names, in other folders, made in another order."""
    paths = sorted(p for p in images.rglob("*") if p.suffix in (".png", ".jpg"))
    order = np.random.default_rng(seed).permutation(len(paths))
    for number, i in enumerate(order):
        target = place / f"{'éß'[number % 2]}{number % 3}" / f"{len(order) - number} of them{paths[i].suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(paths[i].read_bytes())
    return place


@pytest.mark.slow
def test_a_build_is_the_same_whatever_is_around_it(tmp_path):
    _tiny.pictures(tmp_path / "images", 12)
    few = ("--set", "rounds=2", "--set", "learn=2", "--set", "search_images=6")
    model = ("--model-py", f"{_tiny.__file__}:make", "--count", "8", *few)
    first = build(tmp_path / "first", {}, *model, "--images", str(tmp_path / "images"))
    around = {name: value for part in OTHER.values() for name, value in part.items()}
    other = renamed(tmp_path / "images", tmp_path / "others", 1)
    second = build(tmp_path / "second", around, *model, "--images", str(other))
    assert different(first, second) == []


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Images, and how a trained mobilevit_xxs is built on them by the default method."""
    from benchmarks.demo.images import generate
    from benchmarks.demo.train import WEIGHTS

    place = tmp_path_factory.mktemp("shapes")
    generate(place / "images", 2, seed=11)
    return place, ("mobilevit_xxs", "--weights", str(WEIGHTS), "--classes", "10", "--input-size", "128",
                   "--count", "12")  # fmt: skip


@pytest.fixture(scope="module")
def plain(shapes):
    place, model = shapes
    return build(place / "plain", {}, *model, "--images", str(place / "images"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OTHER, "names"])
def test_a_trained_network_is_the_same_whatever_is_around_it(shapes, plain, name):
    place, model = shapes
    images = renamed(place / "images", place / "others", 2) if name == "names" else place / "images"
    assert different(plain, build(place / name, OTHER.get(name, {}), *model, "--images", str(images))) == []
