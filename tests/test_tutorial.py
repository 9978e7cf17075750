"""Pages of docs/ as a newcomer follows them: their files are written and their ``sh`` blocks run, in their order."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {"python": "", "qhyvit": "-m qhyvit", "qhyvit-device": "-m qhyvit_device"}


def folder(base):
    """An empty folder beside a clone, and in ``bin`` the commands of this checkout."""
    (base / "qhyvit").symlink_to(ROOT)
    (base / "bin").mkdir()
    for name, arguments in COMMANDS.items():
        script = base / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        script.chmod(0o755)
    (base / "tour").mkdir()
    return base / "tour"


def followed(page, tour):
    """What each ``sh`` block of a page of docs/ printed."""
    here = os.pathsep.join(map(str, (ROOT / "pipeline", ROOT / "device", os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "PATH": f"{tour.parent / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": here}
    printed = []
    for kind, body in BLOCK.findall((ROOT / "docs" / page).read_text()):
        if kind == "python":
            name = re.match(r"# (\S+\.py)\n", body)[1]
            (tour / name).write_text(body)
        elif kind == "sh":
            shell = ["bash", "-euc", body]
            done = subprocess.run(shell, cwd=tour, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{body}\n{done.stderr}"
            printed.append(done.stdout)
    return printed


@pytest.mark.slow
def test_the_tutorial_leads_to_a_bundle_that_works(tmp_path):
    tour = folder(tmp_path)
    said = followed("tutorial.md", tour)
    assert len(said) == 4
    assert "FAILED" not in said[1]
    assert json.loads((tour / "shapes-int8" / "manifest.json").read_text())["model"] == "shapes_net"
    row = next(line for line in said[2].splitlines() if "integer" in line)
    agrees = float(re.findall(r"\d+\.\d+", row)[2])
    assert agrees >= 85  # the page says 92.5 %; other processors calibrate to other plans
    assert "worst_difference 0" in said[3]
    assert re.search(r"0003\.jpg\n +\d+\.\d %  star \(6\)", said[3])
    assert "data:image" in (tour / "shapes-int8.html").read_text()


def test_blocks_that_are_not_run_are_told_apart():
    """``sh`` runs; ``console`` needs a board or network, ``text`` is output, ``python`` a file."""
    kinds = [kind for kind, _ in BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())]
    assert set(kinds) == {"sh", "console", "text", "python"}
    assert kinds.count("sh") == 4


@pytest.mark.slow
def test_the_page_of_tasks_builds_one_bundle_of_each(tmp_path):
    tour = folder(tmp_path)
    _, embedded, classified, measured, mapped, several = followed("tasks.md", tour)
    built = {p.parent.name: json.loads(p.read_text())["task"] for p in tour.glob("*/manifest.json")}
    assert built == {
        "features-int8": "embed", "one-int8": "multilabel", "labels-int8": "multilabel", "corners-int8": "regress",
        "where-int8": "segment", "two-int8": "raw",
    }  # fmt: skip
    assert "FAILED" not in "".join((embedded, classified, measured, mapped, several))
    assert float(re.search(r"integer.*?(0\.9\d+|1\.0+)", embedded)[1]) > 0.97  # the cosine to float
    assert re.search(r"drawn: where\.png", mapped)
    assert (tour / "where.png").stat().st_size > 1000
    assert (tour / "where.html").read_text().count("data:image/jpeg") >= 4
    with np.load(tour / "outputs.npz") as found:
        assert {name: found[name].shape for name in found} == {"shape": (1, 10), "features": (1, 320)}


@pytest.mark.slow
def test_a_segmentation_of_ones_own_is_trained_built_and_measured(tmp_path):
    tour = folder(tmp_path)
    _, trained, built, device = followed("segmentation.md", tour)
    assert float(re.search(r"loss ([\d.]+)", trained)[1]) < 0.3
    assert "FAILED" not in built
    float_miou, integer = (
        float(re.search(rf"│ {name} +│ +([\d.]+)", built)[1]) for name in ("float", "integer")
    )
    assert float_miou > 60
    assert abs(float_miou - integer) < 3
    assert "worst_difference 0" in device
    assert (tour / "over.png").stat().st_size > 0
    assert "data:image" in (tour / "scenes-int8.html").read_text()
