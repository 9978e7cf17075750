"""docs/tutorial.md as a newcomer follows it: its files are written and its ``sh`` blocks run, in its order."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = {"python": "", "qhyvit": "-m qhyvit", "qhyvit-device": "-m qhyvit_device"}


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """The folder of the page, beside a clone, and PATH with the commands of this checkout."""
    base = tmp_path_factory.mktemp("tutorial")
    (base / "qhyvit").symlink_to(ROOT)
    (base / "bin").mkdir()
    for name, arguments in COMMANDS.items():
        script = base / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        script.chmod(0o755)
    (base / "tour").mkdir()
    return base / "tour"


@pytest.fixture(scope="module")
def said(tour):
    """What each block printed."""
    here = os.pathsep.join(map(str, (ROOT / "pipeline", ROOT / "device", os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "PATH": f"{tour.parent / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": here}
    printed = []
    for kind, body in BLOCK.findall(PAGE.read_text()):
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
def test_the_tutorial_leads_to_a_bundle_that_works(said, tour):
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
    kinds = [kind for kind, _ in BLOCK.findall(PAGE.read_text())]
    assert set(kinds) == {"sh", "console", "text", "python"}
    assert kinds.count("sh") == 4
