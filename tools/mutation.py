"""``make mutation``: how many small changes of ``ops/``, ``passes/`` and ``lowering/`` make a test fail.

Draws ``MUTANTS`` places with ``SEED``, a third of them in each folder, changes each in one way (cosmic-ray's operators)
and runs the tests that run the changed function, the quickest first, until one fails or ``SECONDS`` of processor time
are over: the score is a lower bound. Everything lies in ``build/mutation``: a second run takes up what is done, tries a
survivor again only if its tests have changed, and finds the survivors as diffs in ``survivors.diff``.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib
import itertools
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import mutant_tests
from mutants import Mutant, drawn

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "mutation"
RESULT = ROOT / "benchmarks" / "results" / "mutation.csv"
FOLDERS = ("ops", "passes", "lowering")
LEFT_OUT = {"arm64", "benchmarks", "boards", "device", "docker", "report"}
CONCERNS = re.compile(r"qhyvit\.(ops|passes|lowering)\b|tests\.(_graphs|_layer_graphs|ops)\b")
# imported once, before the processes part; the project's own modules must not be
SHARED_IMPORTS = ("torch", "scipy.optimize", "networkx", "PIL.Image", "ai_edge_litert.interpreter")
TRACE_LIMIT = 3600.0  # seconds


@dataclass(frozen=True)
class Task:
    """A call in a process of its own, which writes ``answer`` within ``limit`` seconds."""

    answer: Path
    call: Callable[[], None]
    limit: float


def forked(tasks: Iterable[Task], processes: int) -> Iterator[Task]:
    """Run tasks, so many at a time; gives each back when it ended or was ended."""
    context, waiting = multiprocessing.get_context("fork"), iter(tasks)
    running: dict[int, tuple[Task, multiprocessing.process.BaseProcess, float]] = {}
    while True:
        for task in itertools.islice(waiting, processes - len(running)):
            child = context.Process(target=task.call)
            child.start()
            running[child.sentinel] = task, child, time.monotonic() + task.limit
        if not running:
            return
        wait(list(running), timeout=1.0)
        for sentinel, (task, child, end) in list(running.items()):
            if time.monotonic() > end:
                child.kill()
            if not child.is_alive() or time.monotonic() > end:
                child.join()
                del running[sentinel]
                yield task


def digest(*texts: str) -> str:
    """A short name for texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def folder_of(path: Path) -> str:
    """The package that a file is in."""
    return path.relative_to(mutant_tests.PACKAGES / "qhyvit").parts[0]


# --- which tests run what ---


@dataclass(frozen=True)
class Test:
    """A test that passes: its processor seconds, with those of the fixtures it shares, and the functions it runs."""

    name: str
    seconds: float
    runs: frozenset[str]
    text: str  # of its file


def traced(processes: int) -> list[Test]:
    """All tests of the fast suite that concern the folders; a file is run anew where its text has changed."""
    sources = [mutant_tests.PACKAGES / "qhyvit" / name for name in FOLDERS]
    texts, tasks = {}, []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text, inside = path.read_text(), path.relative_to(ROOT / "tests").parts
        if inside[0] not in LEFT_OUT and CONCERNS.search(text):
            answer = WORK / "tests" / f"{path.stem}-{digest(text)}.json"
            texts[answer] = text
            if not answer.exists():
                tasks.append(Task(answer, _call(mutant_tests.trace, path, sources, answer), TRACE_LIMIT))
    for i, task in enumerate(forked(tasks, processes)):
        say(f"{i + 1} of {len(tasks)} test files: {task.answer.name}{'' if task.answer.exists() else ' FAILED'}")
    return [
        Test(name, found["seconds"], frozenset(found["runs"]), text)
        for answer, text in texts.items() if answer.exists()
        for name, found in json.loads(answer.read_text()).items()
    ]  # fmt: skip


def _call(function: Callable[..., None], *args: object) -> Callable[[], None]:
    return lambda: function(*args)


def chosen(mutant: Mutant, tests: list[Test], seconds: float) -> list[Test]:
    """Tests for a mutant, the quickest first: those that run its function.

    What stands outside functions is read when the module is imported: the tests that run any of its functions, or
    whose file names it. Estimates count the fixtures that tests share for each of them; three times the seconds
    are chosen, and a run ends after those that it really takes.
    """
    where = str(mutant.path.relative_to(ROOT))
    able = [t for t in tests if f"{where}::{mutant.function}" in t.runs]
    if not able:
        word = re.compile(rf"\b({mutant.path.stem}|{mutant.path.stem.upper()})\b")
        able = [t for t in tests if any(r.startswith(f"{where}::") for r in t.runs) or word.search(t.text)]
    able.sort(key=lambda t: (t.seconds, t.name))
    sums = itertools.accumulate(t.seconds for t in able)
    return [t for t, s in zip(able, sums, strict=True) if s - t.seconds <= 3 * seconds]


# --- outcomes ---


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: "killed by ...", "survived", "no test" or "no end"."""

    mutant: Mutant
    what: str

    @property
    def killed(self) -> bool:
        """Whether the tests tell the mutant from the original."""
        return self.what.startswith("killed") or self.what == "no end"


def outcomes(mutants: list[Mutant], tests: list[Test], processes: int, seconds: float) -> Iterator[Outcome]:
    """Outcomes of all mutants, as they come; those known are read."""
    tasks: dict[Path, tuple[Mutant, Task]] = {}
    for mutant in mutants:
        picked = chosen(mutant, tests, seconds)
        name = digest(str(mutant.path.relative_to(ROOT)), mutant.source)
        answer = WORK / "mutants" / f"{name}-{digest(*(t.name + t.text for t in picked))}.txt"
        kills = [p for p in sorted(answer.parent.glob(f"{name}-*.txt")) if p.read_text()]
        if not picked:
            yield Outcome(mutant, "no test")
        elif kills or answer.exists():
            yield _outcome(mutant, kills[0] if kills else answer)
        else:
            names = [t.name for t in picked]
            run = _call(mutant_tests.test, mutant.path, mutant.source, names, seconds, answer)
            tasks[answer] = mutant, Task(answer, run, 10 * seconds + 120)
    for task in forked([task for _, task in tasks.values()], processes):
        if not task.answer.exists():
            task.answer.write_text("no end")
        yield _outcome(tasks[task.answer][0], task.answer)


def _outcome(mutant: Mutant, answer: Path) -> Outcome:
    found = answer.read_text()
    return Outcome(mutant, "survived" if not found else found if found == "no end" else f"killed by {found}")


def diff(outcome: Outcome) -> str:
    """A survivor as a diff under a line that says what it is."""
    mutant = outcome.mutant
    lines = (text.splitlines(keepends=True) for text in (mutant.path.read_text(), mutant.source))
    changed = list(difflib.unified_diff(*lines, n=1))[2:]
    where = f"{mutant.path.relative_to(ROOT)}:{mutant.line} {mutant.function} {mutant.operator}, {outcome.what}"
    return f"# {where}\n{''.join(changed)}\n"


def row(folder: str, found: list[Outcome], wanted: int, seed: int, seconds: float) -> dict[str, object]:
    """A line of the result file."""
    mine = [o for o in found if folder_of(o.mutant.path) == folder]
    killed = sum(o.killed for o in mine)
    return {
        "folder": folder, "mutants": len(mine), "killed": killed,
        "no_end": sum(o.what == "no end" for o in mine), "no_test": sum(o.what == "no test" for o in mine),
        "score_percent": f"{100 * killed / len(mine):.1f}", "seed": seed, "seconds_each": f"{seconds:g}",
        "command": f"make mutation MUTANTS={wanted} SEED={seed}",
    }  # fmt: skip


def say(line: str) -> None:
    """One line of progress."""
    print(f"mutation: {line}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=300, help="of all folders together; 0: every place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=40.0, help="processor time of a mutant's tests")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    for name in SHARED_IMPORTS:
        importlib.import_module(name)
    for name in ("tests", "mutants"):
        (WORK / name).mkdir(parents=True, exist_ok=True)
    share = -(-args.mutants // len(FOLDERS)) or None
    mutants = [m for name in FOLDERS
               for m in itertools.islice(drawn(mutant_tests.PACKAGES / "qhyvit" / name, args.seed), share)]  # fmt: skip
    tests = traced(args.processes)
    say(f"{len(mutants)} mutants, {len(tests)} tests")
    found = []
    for outcome in outcomes(mutants, tests, args.processes, args.seconds):
        found.append(outcome)
        if not outcome.killed:
            say(f"{len(found)} of {len(mutants)}: {diff(outcome).splitlines()[0][2:]}")
    (WORK / "survivors.diff").write_text("".join(diff(o) for o in found if not o.killed))
    rows = [row(name, found, args.mutants, args.seed, args.seconds) for name in FOLDERS]
    from benchmarks._files import write_rows  # imports the package: not before the last mutant

    write_rows(RESULT, rows, ("folder",))
    say(", ".join(f"{r['folder']} {r['score_percent']} % of {r['mutants']}" for r in rows))


if __name__ == "__main__":
    if "qhyvit" in sys.modules:
        sys.exit("mutation: qhyvit is imported already: a mutant would not be")
    main()
