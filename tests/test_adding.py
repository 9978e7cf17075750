"""docs/adding.md as a newcomer follows it: its files are written into a copy of the tree, its commands run there."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qhyvit.registry import GROUPS
from tests._pages import BLOCK, ROOT, missing

PAGE = (ROOT / "docs" / "adding.md").read_text()
COMMANDS = {"python": "", "qhyvit": "-m qhyvit"}


def commands() -> Iterator[tuple[str, str]]:
    """Each ``sh`` block with the ``text`` block that says what it prints."""
    blocks = BLOCK.findall(PAGE)
    for (kind, body), (next_kind, text) in itertools.pairwise(blocks):
        if kind == "sh":
            assert next_kind == "text", body
            yield body, text


def written() -> dict[str, str]:
    """The page's files by their paths."""
    bodies = [body for kind, body in BLOCK.findall(PAGE) if kind == "python"]
    return {re.match(r"# (\S+\.py)\n", body)[1]: body for body in bodies}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code with the page's files in it."""
    base = tmp_path_factory.mktemp("adding")
    for folder in ("pipeline", "device", "tests", "benchmarks"):
        shutil.copytree(ROOT / folder, base / folder, ignore=shutil.ignore_patterns("results", ".*"))
    shutil.copy(ROOT / "pyproject.toml", base)
    for name, body in written().items():
        assert not (base / name).exists(), name
        (base / name).write_text(body)
    (base / "bin").mkdir()
    for name, arguments in COMMANDS.items():
        script = base / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        script.chmod(0o755)
    return base


@pytest.fixture(scope="module")
def run(clone: Path) -> Callable[[str], str]:
    """Runs a script in the copy, with the copy's code, and gives what it printed."""
    here = os.pathsep.join(str(clone / folder) for folder in ("pipeline", "device", "."))
    env = {**os.environ, "PATH": f"{clone / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": here}

    def script(body: str) -> str:
        shell = ["bash", "-euc", body]
        done = subprocess.run(shell, cwd=clone, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return script


SHOWN = [pytest.param(*pair, id=pair[0].split(" -q")[0], marks=[pytest.mark.slow] if "qhyvit build" in pair[0] else [])
         for pair in commands()]  # fmt: skip


@pytest.mark.parametrize(("body", "text"), SHOWN)
def test_commands_print_what_the_page_says(run: Callable[[str], str], body: str, text: str) -> None:
    printed = run(body)
    assert "failed" not in printed.lower()
    assert missing(text, printed) == [], printed


def test_each_shelf_has_an_example() -> None:
    folders = {Path(name).parts[2] for name in written() if name.startswith("pipeline")}
    assert {f"qhyvit.{folder}" for folder in folders} == set(GROUPS)
    assert len(list(commands())) == 9


def test_what_the_page_writes_is_clean(clone: Path) -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", *written()]
    done = subprocess.run(ruff, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_what_the_page_writes_has_its_types(clone: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_packages_groups_are_those_that_are_looked_for() -> None:
    (body,) = (body for kind, body in BLOCK.findall(PAGE) if kind == "toml")
    assert set(tomllib.loads(body)["project"]["entry-points"]) <= set(GROUPS)
    assert set(GROUPS) <= set(re.findall(r"qhyvit\.\w+", PAGE))
