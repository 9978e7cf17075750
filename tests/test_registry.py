"""Constants of folders and of installed packages, and what is said where one is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

OBSERVER = """
from qhyvit.observers.shared.observer import Observer
from qhyvit.observers.minmax import MinMax

OBSERVER = Observer({name!r}, "extremes", MinMax)
"""
ASK = "from qhyvit.observers import all_observers; print(*all_observers())"


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def installed(folder: Path, code: str, group: str = "qhyvit.observers") -> Path:
    """A package with one module and one entry point, as pip would leave it."""
    (folder / "theirs.py").write_text(code)
    facts = folder / "their_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{group}]\ntheirs = theirs\n")
    return folder


def test_another_package_adds_an_observer(tmp_path: Path) -> None:
    done = run(installed(tmp_path, OBSERVER.format(name="theirs")), "-c", ASK)
    assert {"minmax", "theirs"} <= set(done.stdout.split()), done.stderr


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nowhere", "cannot be loaded for qhyvit.observers (ModuleNotFoundError: No module named 'nowhere')"),
        ("OBSERVER = 3", "theirs (of their-package) must define OBSERVER: Observer"),
        (OBSERVER.format(name="minmax"), "theirs (of their-package) registers 'minmax' a second time"),
    ],
)
def test_a_faulty_package_is_named_in_one_line(tmp_path: Path, code: str, message: str) -> None:
    done = run(installed(tmp_path, code), "-m", "qhyvit", "methods")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("qhyvit: error: ")
    assert message in done.stderr


def test_the_hash_of_the_code_sees_what_others_add(tmp_path: Path) -> None:
    folder, ask = installed(tmp_path, OBSERVER.format(name="theirs")), "from qhyvit.work import code; print(code())"
    first, again = (run(folder, "-c", ask).stdout for _ in range(2))
    (folder / "theirs.py").write_text(OBSERVER.format(name="other"))
    changed = run(folder, "-c", ask).stdout
    assert len({first, again, changed}) == 2
    assert first == again
