"""``make release-check``: wheel and sdist from the tracked files, looked into, installed and run as a stranger would.

The base environment is made anew and gets the wheel with its declared dependencies from the package index. For the
pipeline the default is quick: the wheel over the packages of this checkout's environment, and pip's answer to what
``qhyvit[pipeline]`` would install. ``FULL=1`` installs that instead: gigabytes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASE = {"qhyvit", "numpy", "pillow", "ai-edge-litert"}
# weights and pictures that belong into the sdist; anything else of these kinds is a mistake
BINARY = (".safetensors", ".pt", ".pth", ".tflite", ".npz", ".png", ".jpg", ".jpeg")
MEANT = ("docs/", "benchmarks/demo/", "benchmarks/results/")
MOST_BYTES = 8_000_000
PICTURE = "from PIL import Image; Image.new('RGB', (48, 40), (200, 30, 60)).save('photo.png')"
NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    body.preprocess = {"input_size": 32, "resize": 32}
    return body
"""


def say(line: str) -> None:
    """One line of progress."""
    print(f"release-check: {line}", flush=True)


def run(*command: str | Path, cwd: Path, path: str | None = None) -> str:
    """What a command prints, with no trace of this checkout in its environment; ends the check where it fails."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        env["PYTHONPATH"] = path
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"release-check: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def need(good: bool, what: str) -> None:
    """End the check unless ``good``."""
    if not good:
        sys.exit(f"release-check: {what}")


def environment(place: Path) -> Path:
    """A new virtual environment; its Python."""
    run(sys.executable, "-m", "venv", place, cwd=place.parent)
    return place / "bin" / "python"


def pip(python: Path, *arguments: str | Path) -> str:
    """pip in an environment."""
    return run(python, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=python.parent)


def build(place: Path) -> tuple[Path, Path]:
    """Wheel and sdist of the tracked files; the wheel is built from the sdist, whose description renders."""
    source, tools = place / "source", environment(place / "tools")
    pip(tools, "install", "--quiet", "-r", ROOT / "requirements" / "release.txt")
    for name in run("git", "ls-files", cwd=ROOT).splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    run(tools, "-m", "build", "--outdir", place / "dist", source, cwd=place)
    (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    run(tools, "-m", "twine", "check", "--strict", wheel, sdist, cwd=place)
    return wheel, sdist


def look_into(wheel: Path, sdist: Path) -> None:
    """The wheel holds both packages and nothing else; the sdist documents and tests, no stray weights or images."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {n.split("/")[0] for n in names}
    need({t for t in tops if not t.endswith(".dist-info")} == {"qhyvit", "qhyvit_device"}, f"the wheel holds {tops}")
    need(any(n.endswith(".dist-info/sboms/qhyvit.cdx.json") for n in names), "the wheel lacks its bill of materials")
    for part in ("qhyvit", "qhyvit_device"):
        listed = run("git", "ls-files", f"pipeline/{part}", f"device/{part}", cwd=ROOT).splitlines()
        inside = {line.partition("/")[2] for line in listed}
        need(inside <= names, f"the wheel lacks {sorted(inside - names)[:5]}")
    with tarfile.open(sdist) as archive:
        found = {n.name.partition("/")[2]: n.size for n in archive.getmembers() if n.isfile()}
    for name in ("docs/tutorial.md", "tests/test_release.py", "LICENSE", "CHANGELOG.md", "Makefile", "tools/setup.sh",
                 "qhyvit.egg-info/sboms/qhyvit.cdx.json"):  # fmt: skip
        need(name in found, f"the sdist lacks {name}")
    stray = [n for n in found if n.endswith(BINARY) and not n.startswith(MEANT)]
    need(not stray, f"the sdist holds {stray[:5]}")
    need(sdist.stat().st_size <= MOST_BYTES, f"the sdist has {sdist.stat().st_size / 1e6:.1f} MB")
    say(f"{wheel.name} {wheel.stat().st_size / 1e3:.0f} kB, {sdist.name} {sdist.stat().st_size / 1e6:.1f} MB")


def small_bundle(place: Path) -> Path:
    """A bundle of two layers, by this checkout."""
    images = place / "images"
    images.mkdir()
    draw = "import numpy as np\nfrom PIL import Image\nfor i in range(8):\n    a = np.random.default_rng(i)"
    draw += ".integers(0, 255, (32, 32, 3), np.uint8)\n    Image.fromarray(a).save(f'images/{i}.png')"
    run(sys.executable, "-c", draw, cwd=place)
    (place / "net.py").write_text(NET)
    command = ("build", "--model-py", "net.py:net", "--images", "images", "--method", "minmax", "--count", "8")
    here = f"{ROOT / 'pipeline'}:{ROOT / 'device'}"
    run(sys.executable, "-m", "qhyvit", *command, "--out", "small", cwd=place, path=here)
    return place / "small"


def check_base(place: Path, wheel: Path, version: str) -> None:
    """The device stage alone, with its declared dependencies from the index."""
    python = environment(place / "base")
    pip(python, "install", "--quiet", wheel)
    pip(python, "check")
    listed = {p["name"].lower() for p in json.loads(pip(python, "list", "--format", "json"))} - {"pip", "setuptools"}
    need(listed >= BASE, f"the base environment lacks {BASE - listed}")
    need(not {"torch", "timm", "typer"} & listed, f"the base environment holds {sorted(listed)}")
    device, bundle = python.with_name("qhyvit-device"), small_bundle(place)
    need(run(device, "--version", cwd=place).strip() == version, "qhyvit-device --version differs")
    test = json.loads(run(device, "info", bundle, "--json", cwd=place))["self_test"]
    need(test["equal_codes"] == 1.0, f"self test: {test}")
    run(python, "-c", PICTURE, cwd=place)
    run(device, "classify", bundle, "photo.png", "--json", cwd=place)
    said = subprocess.run([python.with_name("qhyvit"), "--help"], capture_output=True, text=True, check=False)
    need(said.returncode == 2 and "qhyvit[pipeline]" in said.stderr, f"qhyvit without its parts says {said.stderr}")
    say(f"base: {', '.join(sorted(listed))}; info and classify run")


def check_pipeline(place: Path, wheel: Path, version: str) -> None:
    """The host stage: quickly over the packages that are here, or (FULL=1) with all that it declares."""
    python, wanted = environment(place / "pipeline"), f"qhyvit[pipeline] @ {wheel.as_uri()}"
    if os.environ.get("FULL") == "1":
        pip(python, "install", "--quiet", wanted)
        pip(python, "check")
        say("pipeline: installed with all dependencies, pip check is clean")
    else:
        pip(python, "install", "--quiet", "--no-deps", wheel)
        (home,) = (place / "pipeline" / "lib").glob("python*/site-packages")
        ours = next(p for p in sys.path if p.endswith("site-packages"))
        (home / "here.pth").write_text(ours + "\n")
        lacking = missing(wheel)
        need(not lacking, f"the environment of this checkout does not have what the wheel declares: {lacking}")
        say("pipeline: the wheel over the packages of this checkout, in declared versions (FULL=1: all anew)")
    tool = python.with_name("qhyvit")
    need(run(tool, "--version", cwd=place).strip() == version, "qhyvit --version differs")
    home_of = run(python, "-c", "import qhyvit; print(qhyvit.__file__)", cwd=place)
    need(str(place / "pipeline") in home_of, f"another qhyvit ran: {home_of}")
    run(tool, "--help", cwd=place)
    found = json.loads(run(tool, "models", "--json", cwd=place))["models"]
    need(len(found) >= 24, f"{len(found)} models")
    say(f"pipeline: --version, --help and models run ({len(found)} models)")


def missing(wheel: Path) -> list[str]:
    """What ``[pipeline]`` declares and this environment does not hold in that version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from packaging.metadata import Metadata

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        declared = Metadata.from_email(archive.read(name), validate=True).requires_dist or []
    lost = []
    for requirement in declared:
        if requirement.marker is None or requirement.marker.evaluate({"extra": "pipeline"}):
            try:
                good = requirement.specifier.contains(installed(requirement.name), prereleases=True)
            except PackageNotFoundError:
                good = False
            lost += [] if good else [str(requirement)]
    return lost


def main() -> None:
    """The whole check."""
    if "-dirty" in run("git", "describe", "--always", "--dirty", cwd=ROOT):
        say("there are changes that are not committed; they are checked as well")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        wheel, sdist = build(place)
        look_into(wheel, sdist)
        version = wheel.name.split("-")[1]
        check_base(place, wheel, version)
        check_pipeline(place, wheel, version)
    say(f"qhyvit {version} can be released")


if __name__ == "__main__":
    main()
