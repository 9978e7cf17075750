"""Tests in processes of their own: which functions each one runs, and whether some of them fail on a mutant."""

from __future__ import annotations

import importlib.abc
import importlib.util
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / "pipeline"
MARKS = "not slow and not boards and not arm64 and not docker and not tosa"
QUIET = ["-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly", "--hypothesis-seed=0", "--tb=no"]
PER_TEST = "function"  # the scope of a fixture that belongs to one test alone


def _prepare(log: Path) -> None:
    """What the tests print goes to a file, and no deadline counts on a busy machine."""
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    hypothesis.settings.register_profile("mutation", deadline=None, database=None)
    hypothesis.settings.load_profile("mutation")
    sys.path[:0] = [str(ROOT), str(PACKAGES), str(ROOT / "device")]


# --- which functions a test runs ---


class _Trace:
    """A pytest plugin that names what runs, a test or a fixture that many tests share, and takes its time."""

    def __init__(self, measured: Any) -> None:  # coverage.Coverage, which only tracing needs
        self.measured = measured
        self.current = ""
        self.seconds: dict[str, float] = defaultdict(float)
        self.shared: dict[str, set[str]] = {}
        self.passed: set[str] = set()

    def _switch(self, name: str) -> Iterator[None]:
        before, self.current = self.current, name
        self.measured.switch_context(name)
        inner = sum(self.seconds.values())
        start = time.process_time()
        yield
        self.seconds[name] += time.process_time() - start - (sum(self.seconds.values()) - inner)
        self.current = before
        self.measured.switch_context(before)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        name = item.nodeid
        definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009 - pytest has no public way
        self.shared[name] = {f"fixture {n}" for n, found in definitions.items() if found[-1].scope != PER_TEST}
        run = self._switch(name)
        next(run)
        try:
            return (yield)
        finally:
            next(run, None)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        if fixturedef.scope == PER_TEST:
            return (yield)
        run = self._switch(f"fixture {fixturedef.argname}")
        next(run)
        try:
            return (yield)
        finally:
            next(run, None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        elif report.failed:
            self.passed.discard(report.nodeid)


def trace(test_file: Path, folders: list[Path], answer: Path) -> None:
    """Run the tests of a file; write of each that passes its seconds and the functions of ``folders`` that it runs."""
    import coverage
    from mutants import functions

    _prepare(answer.with_suffix(".log"))
    measured = coverage.Coverage(data_file=None, config_file=False, source=[str(f) for f in folders])
    measured.start()
    plugin = _Trace(measured)
    pytest.main([*QUIET, "-m", MARKS, str(test_file)], plugins=[plugin])
    measured.stop()
    ran: dict[str, set[str]] = defaultdict(set)
    data = measured.get_data()
    for path in data.measured_files():
        names = functions(Path(path).read_text())
        for line, contexts in data.contexts_by_lineno(path).items():
            if line in names:
                for context in contexts:
                    ran[context].add(f"{Path(path).relative_to(ROOT)}::{names[line]}")
    found = {}
    for name in sorted(plugin.passed):
        parts = [name, *plugin.shared[name]]
        seconds = sum(plugin.seconds[p] for p in parts)
        found[name] = {"seconds": round(seconds, 3), "runs": sorted(set().union(*(ran[p] for p in parts)))}
    answer.write_text(json.dumps(found))


# --- whether tests fail on a mutant ---


class _Loader(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a text instead of its file."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source = path, source
        parts = path.relative_to(PACKAGES).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.package else parts)

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name, self.path, loader=self, submodule_search_locations=[str(self.path.parent)] if self.package else None
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.source, str(self.path), "exec"), module.__dict__)


class _Chosen:
    """A pytest plugin that runs the chosen tests in their order, until one fails or the time is over."""

    def __init__(self, names: list[str], seconds: float) -> None:
        self.order = {name: i for i, name in enumerate(names)}
        self.until = time.process_time() + seconds
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        if time.process_time() > self.until:
            item.session.shouldstop = "time is over"


def test(path: Path, source: str, names: list[str], seconds: float, answer: Path) -> None:
    """Run tests with ``path`` imported as ``source``; write the first that fails, "" if none does."""
    _prepare(answer.with_suffix(".log"))
    sys.meta_path.insert(0, _Loader(path, source))
    plugin = _Chosen(names, seconds)
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    code = pytest.main([*QUIET, "-x", "-m", MARKS, *files], plugins=[plugin])
    broken = "" if code in (pytest.ExitCode.OK, pytest.ExitCode.INTERRUPTED) else f"pytest ended with {int(code)}"
    answer.write_text(plugin.failed or broken)
