"""``make mutation``: what it changes, and that a changed module is what the tests then import."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
AFFINE = ROOT / "pipeline" / "qhyvit" / "affine.py"
FINE = "tests/test_affine.py::test_scales_are_float32_values_above_the_floor"
REFUSED = "tests/test_affine.py::test_a_range_that_is_not_ordered_is_refused"
SOURCE = '''"""A module."""
from __future__ import annotations
from typing import Any
def chosen(x: int | None, *, table: dict[str, Any] | None = None) -> int | str:
    """Two plus one."""
    y: int | None = x
    if y is not None and y * 3 > 6:
        return y + 1
    return "a"
'''
RUN = "import mutant_tests, pathlib, sys; path, answer, *names = sys.argv[1:]; " \
      "mutant_tests.test(pathlib.Path(path), sys.stdin.read(), names, 60.0, pathlib.Path(answer))"  # fmt: skip


@pytest.fixture
def mutants(monkeypatch):
    pytest.importorskip("cosmic_ray", reason="`make mutation` installs it")
    monkeypatch.syspath_prepend(str(TOOLS))
    import mutants

    return mutants


def test_mutants_mean_something_else_and_types_stay(mutants, tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    made = [m for seed in range(20) for m in mutants.drawn(tmp_path, seed)]
    assert {m.line for m in made} == {7, 8}
    assert all(m.function == "chosen" for m in made)
    found: dict[str, object] = {}
    for mutant in made:
        names: dict[str, object] = {}
        exec(mutant.source, names)
        results = []
        for x in (None, 1, 2, 2.25, 3, 4):
            try:
                results.append(names["chosen"](x))
            except TypeError:
                results.append("refused")
        found[mutant.source] = results
    assert ["a", "a", "a", 3.25, 4, 5] not in found.values()
    assert len(found) > 8


def test_a_longer_draw_begins_as_a_shorter_one(mutants):
    folder = ROOT / "pipeline" / "qhyvit" / "lowering"
    few, more = (list(itertools.islice(mutants.drawn(folder, 5), n)) for n in (3, 6))
    assert more[:3] == few
    assert len({(m.path, m.line, m.source) for m in more}) == 6
    assert few != list(itertools.islice(mutants.drawn(folder, 6), 3))


@pytest.mark.parametrize(
    ("old", "new", "first"),
    [
        ("high < low)", "high < low)", ""),
        ("high < low)", "high < high)", REFUSED),
        ("SCALE_FLOOR = 1e-7", "SCALE_FLOOR = 1 / 0", "tests/test_affine.py"),  # nothing can be collected
    ],
)
def test_tests_import_the_changed_module(tmp_path, old, new, first):
    """The first test that fails is named; none does on the original."""
    source, answer = AFFINE.read_text(), tmp_path / "answer.txt"
    assert source.count(old) == 1
    subprocess.run([sys.executable, "-c", RUN, AFFINE, answer, FINE, REFUSED], cwd=ROOT, check=True, text=True,
                   input=source.replace(old, new), env={**os.environ, "PYTHONPATH": str(TOOLS)},
                   timeout=300)  # fmt: skip
    assert answer.read_text() == first
