"""The list of steps that make every table: each is a command line that its benchmark takes."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _files, make_results
from benchmarks.tables import TABLES

STEPS = make_results.steps(Path("images"), Path("weights"), Path("work"))
WITH_PARSER = ("accuracy", "front", "stock")
# made by `make mutation`; rows of latency, and of bits; in another environment
WITHOUT_STEP = {"mutation", "turns", "four_bits", "rivals"}


@pytest.mark.parametrize("step", [s for s in STEPS if s.words[0] in WITH_PARSER], ids=lambda s: s.name)
def test_a_step_is_a_command_line_of_its_benchmark(step):
    benchmark = importlib.import_module(f"benchmarks.{step.words[0]}")
    args = benchmark._parser().parse_args(step.words[1:])
    if step.words[0] == "accuracy":
        assert set(benchmark._named(args.rows)) <= set(benchmark.ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({s.words[0] for s in STEPS} - set(WITH_PARSER)))
def test_a_step_has_options_that_its_benchmark_has(name):
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--help"], capture_output=True, text=True,
                          check=True, cwd=_files.ROOT)  # fmt: skip
    given = {word for s in STEPS if s.words[0] == name for word in s.words if word.startswith("--")}
    assert {option for option in given if option not in done.stdout} == set()


def test_every_table_has_a_step():
    made = {s.name for s in STEPS}
    assert {name for name in TABLES if name not in made} == WITHOUT_STEP


def test_steps_go_on_behind_one_that_fails(monkeypatch, capfd):
    ends = make_results.Step("broken", ("no_such_benchmark",)), make_results.Step("well", ("plots", "--help"))
    assert make_results.run(ends) == [ends[0]]
    assert "[2 of 2] well" in capfd.readouterr().out


def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=t", "-c", "user.email=t@t")
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def found():
        _files.commit.cache_clear()
        return _files.commit()

    monkeypatch.setattr(_files, "ROOT", tmp_path)
    try:
        assert found() == ""
        for name in ("pipeline/a.py", "device/b.py", "benchmarks/c.py", "benchmarks/results/r.csv", "docs/d.md"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("1")
        git("init", "-q")
        git("add", "-A")
        git("commit", "-qm", "code")
        first = git("rev-parse", "--short=9", "HEAD")
        assert found() == first
        (tmp_path / "benchmarks/results/r.csv").write_text("2")
        assert found() == first
        git("commit", "-qam", "results")
        assert found() == first
        (tmp_path / "device/b.py").write_text("2")
        assert found() == first + "+"
    finally:
        _files.commit.cache_clear()
