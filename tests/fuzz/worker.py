"""A process that runs cases one after the other: where one ends it, hangs or grows, another process takes over."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.kind import Case, FindingError, Kind, all_kinds
from tests.fuzz.place import stand_ins

FORKS = multiprocessing.get_context("forkserver")  # which has no threads, and has imported what takes long
FAMILIES = ("efficientformer", "efficientformerv2", "mobile_former", "mobilevit", "mobilevitv2", "_export", "_source")
FORKS.set_forkserver_preload([
    "tests.fuzz.place", "tests.fuzz.programs", "qhyvit.report.gather", "qhyvit.sweep.spec", "timm", "torchvision",
    *(f"qhyvit.models.{name}" for name in FAMILIES),
])  # fmt: skip
START_SECONDS = 120.0  # of a process, and of drawing a case
PATIENCE = 10  # times a case's processor seconds that are waited for: other programs may have the processors
TICKS = os.sysconf("SC_CLK_TCK")
GRACE = 1.5  # times a case's memory at which it is not waited for


@dataclass
class Result:
    """What came of a case.

    Args:
        outcome: of the kind; of a finding its sort and what is known of it.
        finding: whether a rule does not hold.
        seconds: processor time.
        megabytes: that the process grew by, at most.
    """

    kind: str
    outcome: str
    finding: bool = False
    seconds: float = 0.0
    megabytes: float = 0.0
    case: Case = field(default=(), repr=False)


def kind_at(seed: int, number: int) -> tuple[Kind, Random]:
    """The kind of a run's case, and what it is drawn with."""
    kinds = list(all_kinds().values())
    return Random(f"{seed}/{number}/kind").choices(kinds, [kind.share for kind in kinds])[0], case_random(seed, number)


def case_random(seed: int, number: int) -> Random:
    """What the case of a number is drawn with."""
    return Random(f"{seed}/{number}")


def attempt(kind: Kind, case: Case) -> Result:
    """Run a case here, in the current folder."""
    _reset_peak()
    before, started = _memory("VmRSS"), time.process_time()
    try:
        outcome, finding = kind.run(case), False
    except FindingError as error:
        outcome, finding = f"rule: {error}", True
    except BaseException:
        outcome, finding = f"exception: {traceback.format_exc()[-3000:]}", True
    seconds, grown = time.process_time() - started, (_memory("VmHWM") - before) / 1024
    if not finding and grown > kind.megabytes:
        outcome, finding = f"memory: it grew by {grown:.0f} MB, more than {kind.megabytes}", True
    return Result(kind.name, outcome, finding, seconds, max(grown, 0.0), case)


def _memory(name: str, process: int | str = "self") -> int:
    """Of /proc/PID/status, kB."""
    with open(f"/proc/{process}/status") as lines:
        return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


def _cpu(process: int) -> float:
    """Processor seconds of a process, 0 where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _reset_peak() -> None:
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _serve(pipe: Connection, place: Path, folder: Path) -> None:
    """Take cases, by number or themselves, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)
    shutil.copytree(place, folder, dirs_exist_ok=True)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    parent = os.getppid()
    with stand_ins(folder):
        while True:
            while not pipe.poll(1):
                if os.getppid() != parent:  # it was killed
                    return
            try:
                kind, case, seed, number = pipe.recv()
            except EOFError:
                return
            if case is None:
                case = kind.draw(case_random(seed, number))
            pipe.send(case)
            pipe.send(attempt(kind, case))


class Worker:
    """One process, replaced where a case ended it.

    Args:
        place: folder of originals, of which it has a copy.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self.number = -1
        self._start()

    def _start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.pipe, theirs = FORKS.Pipe()
        self._process: Any = FORKS.Process(target=_serve, args=(theirs, self._place, self._folder), daemon=False)
        self._process.start()
        theirs.close()

    def give(self, kind: Kind, case: Case | None = None, seed: int = 0, number: int = -1) -> None:
        """Let it run a case, or the one of a number."""
        self.kind, self.number, self._case, self._since = kind, number, case, time.monotonic()
        self._begun, self._cpu = False, float("inf")
        self.pipe.send((kind, case, seed, number))

    def look(self) -> Result | None:
        """What came of the case, None while it runs."""
        try:
            while self.pipe.poll():
                found = self.pipe.recv()
                if isinstance(found, Result):
                    return found
                self._case, self._begun, self._since = found, True, time.monotonic()
                self._cpu = _cpu(self._process.pid)
        except (EOFError, ConnectionError):
            return self._ended()
        waited = time.monotonic() - self._since
        worked = _cpu(self._process.pid) - self._cpu
        if waited > (PATIENCE * self.kind.seconds if self._begun else START_SECONDS) or worked > self.kind.seconds:
            return self._killed(f"hang: no end after {waited:.0f} s")
        with contextlib.suppress(OSError):
            grown = _memory("VmRSS", self._process.pid) >> 10
            if grown > 1200 + GRACE * self.kind.megabytes:
                return self._killed(f"memory: {grown} MB")
        return None

    def _ended(self) -> Result:
        self._process.join()
        code = self._process.exitcode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return self._replaced(f"crash: the process ended ({how})")

    def _killed(self, outcome: str) -> Result:
        self._kill()
        return self._replaced(outcome)

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # with what it has started
        except ProcessLookupError:  # it has not begun
            self._process.kill()
        self._process.join()

    def _replaced(self, outcome: str) -> Result:
        shutil.rmtree(self._folder, ignore_errors=True)
        self.pipe.close()
        self._start()
        return Result(self.kind.name, outcome, True, case=self._case or ())

    def close(self) -> None:
        """End it."""
        self.pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def workers(place: Path, count: int) -> Iterator[list[Worker]]:
    """So many of them, which end with the block."""
    found = [Worker(place) for _ in range(count)]
    try:
        yield found
    finally:
        for worker in found:
            worker.close()
