"""A fuzzing run: cases by number on several processes, figures by kind, findings in files; a stopped run goes on."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from qhyvit import files
from tests.fuzz import corpus
from tests.fuzz.kind import Case, Kind, all_kinds
from tests.fuzz.shrink import smaller
from tests.fuzz.worker import Result, Worker, kind_at, workers

SAVE_SECONDS = 20.0
ENDS = ("SIG", "exit code -")  # outcomes that are no finding and of which examples are kept: what ends the interpreter
EXAMPLES = 2  # of each
STARTS = ("rule: ", "exception: ", "crash: ", "hang: ", "memory: ")


@dataclass
class Figures:
    """Of one kind: cases, findings, processor seconds, the largest growth in MB, the slowest case, outcomes."""

    cases: int = 0
    findings: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    megabytes: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, result: Result) -> None:
        """Count a case."""
        self.cases += 1
        self.findings += result.finding
        self.seconds += result.seconds
        self.slowest = max(self.slowest, result.seconds)
        self.megabytes = max(self.megabytes, result.megabytes)
        self.outcomes[short(result)] += 1


def short(result: Result) -> str:
    """An outcome in one line; of an exception its last, of a finding without what is the case's own."""
    if not result.finding:
        return result.outcome
    last = result.outcome.strip().splitlines()[-1].partition(" | ")[0]
    sort = next((s for s in STARTS if result.outcome.startswith(s)), "")
    return re.sub(r"\d+", "N", f"{sort}{last.removeprefix(sort)}")[:120]


@dataclass
class State:
    """What a run has done: all cases below ``done``.

    Args:
        seed: of the run.
        wall: seconds that it took.
    """

    seed: int
    done: int = 0
    wall: float = 0.0
    kinds: dict[str, Figures] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it."""
        raw = asdict(self)
        raw["kinds"] = {name: {**asdict(f), "outcomes": dict(f.outcomes)} for name, f in self.kinds.items()}
        files.write_text(path, json.dumps(raw, indent=1) + "\n")

    @staticmethod
    def load(path: Path, seed: int) -> State:
        """Of a run that was stopped, or a new one's.

        Raises:
            ValueError: it has another seed.
        """
        if not path.is_file():
            return State(seed)
        raw: dict[str, Any] = json.loads(path.read_text())
        if raw["seed"] != seed:
            raise ValueError(f"{path} is of a run with --seed {raw['seed']}; give that, or another file")
        kinds = {k: Figures(**{**f, "outcomes": Counter(f["outcomes"])}) for k, f in raw["kinds"].items()}
        return State(seed, raw["done"], raw["wall"], kinds)


class Run:
    """One run.

    Args:
        place: folder of originals.
        findings: folder for what is found.
        state: what is done already.
        path: of the file that keeps it, if any.
        tell: is given lines.
    """

    def __init__(
        self, place: Path, findings: Path, state: State, path: Path | None, tell: Callable[[str], None]
    ) -> None:
        self._place, self._findings, self._state, self._path, self._tell = place, findings, state, path, tell
        self._waiting: dict[int, Result] = {}  # done, behind one that is not
        self.stopped = False

    def cases(self, upto: int, jobs: int) -> State:
        """Run all cases up to a number that are not done, until ``stopped``."""
        started, before = time.monotonic(), self._state.wall
        saved, following = started, self._state.done
        with workers(self._place, jobs) as pool:
            busy: list[Worker] = []
            while True:
                for worker in pool:
                    if worker not in busy and following < upto and not self.stopped:
                        worker.give(kind_at(self._state.seed, following)[0], None, self._state.seed, following)
                        busy.append(worker)
                        following += 1
                if not busy:
                    break
                wait([worker.pipe for worker in busy], timeout=0.2)
                for worker in list(busy):
                    result = worker.look()
                    if result is not None:
                        busy.remove(worker)
                        self._take(worker.number, result)
                self._state.wall = before + time.monotonic() - started
                if time.monotonic() - saved > SAVE_SECONDS:
                    saved = time.monotonic()
                    self._save()
        self._save()
        return self._state

    def _save(self) -> None:
        if self._path is not None:
            self._state.save(self._path)
        self._tell(f"{self._state.done} cases, {sum(f.findings for f in self._state.kinds.values())} findings, "
                   f"{self._state.wall:.0f} s")  # fmt: skip

    def _take(self, number: int, result: Result) -> None:
        self._waiting[number] = result
        while self._state.done in self._waiting:
            found = self._waiting.pop(self._state.done)
            figures = self._state.kinds.setdefault(found.kind, Figures())
            figures.add(found)
            if found.finding or (found.outcome.startswith(ENDS) and figures.outcomes[short(found)] <= EXAMPLES):
                self._keep(self._state.done, found, figures.outcomes[short(found)])
            self._state.done += 1

    def _keep(self, number: int, found: Result, times: int) -> None:
        """Write a finding down, smaller where it is the first of its sort."""
        case = found.case
        if found.finding:
            self._tell(f"case {number}, {found.kind}: {short(found)}")
            if times > 5:
                return
            if times == 1:
                case = shrunk(self._place, all_kinds()[found.kind], found)
        raw = corpus.packed(found.kind, found.outcome, case, number=number, seed=self._state.seed)
        corpus.write(self._findings, raw)


def shrunk(place: Path, kind: Kind, found: Result) -> Case:
    """The case of a finding, smaller."""
    sort = found.outcome[:8]
    with workers(place, 1) as (worker,):

        def stays(case: Case) -> bool:
            result = tried(worker, kind, case)
            return result.finding and result.outcome.startswith(sort) and short(result) == short(found)

        return smaller(found.case, stays)


def tried(worker: Worker, kind: Kind, case: Case | None, seed: int = 0, number: int = -1) -> Result:
    """What comes of a case, or of the one of a number."""
    worker.give(kind, case, seed, number)
    while (result := worker.look()) is None:
        wait([worker.pipe], timeout=0.1)
    return result


def table(state: State) -> str:
    """Figures by kind, then what the kinds say of outcomes."""
    head = ("kind", "cases", "findings", "CPU s", "ms a case", "slowest s", "most MB")
    rows = [
        (k, f.cases, f.findings, f"{f.seconds:.0f}", f"{1000 * f.seconds / max(f.cases, 1):.1f}", f"{f.slowest:.1f}",
         f"{f.megabytes:.0f}")
        for k, f in sorted(state.kinds.items())
    ]  # fmt: skip
    whole = [sum(f.cases for f in state.kinds.values()), sum(f.findings for f in state.kinds.values())]
    rows.append(("all", whole[0], whole[1], f"{sum(f.seconds for f in state.kinds.values()):.0f}", "", "", ""))
    widths = [max(len(str(row[i])) for row in (head, *rows)) for i in range(len(head))]
    lines = ["  ".join(str(v).rjust(w) for v, w in zip(row, widths, strict=True)) for row in (head, *rows)]
    lines.append(f"{state.done} cases in {state.wall:.0f} s")
    for name, figures in sorted(state.kinds.items()):
        common = ", ".join(f"{n} {outcome}" for outcome, n in figures.outcomes.most_common(12))
        lines.append(f"{name}: {common}")
    return "\n".join(lines)
