"""A job: a function by name with JSON arguments, run in a fresh process; its result is one file named by a hash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.errors import QhyvitError
from qhyvit.work import toolchain
from qhyvit_device import __version__

RESULTS, LOGS = "results", "logs"
DIGEST_LENGTH = 16  # hex digits of a file name
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# dask has its workers give every freed block back to the system; a job that allocates at every op would spend more than
# half of its time on that
WORKERS_OWN = "MALLOC_TRIM_THRESHOLD_"


class JobError(QhyvitError):
    """A job that failed: its digest, and what went wrong in one line."""

    def __init__(self, digest: str, line: str) -> None:
        super().__init__(digest, line)
        self.digest, self.line = digest, line

    def __str__(self) -> str:
        return self.line


@dataclass(frozen=True)
class Job:
    """Something to be done once.

    Args:
        label: what people read.
        function: ``module:function``; it takes ``arguments`` as keywords and gives plain data for JSON.
        key: what determines the result; the result's file is named by its hash.
        needs: digests of jobs that have to end first.
        outputs: files beside the result, without which it does not count.
        shared: run only if another job that is not done needs it.
    """

    label: str
    function: str
    arguments: Mapping[str, Any]
    key: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    shared: bool = field(default=False)

    @cached_property
    def digest(self) -> str:
        """Hash of the key, and of the code and the tools that run."""
        text = json.dumps({"tools": toolchain(), **self.key}, sort_keys=True)
        return files.sha256(text.encode())[:DIGEST_LENGTH]

    def result_file(self, folder: Path) -> Path:
        """Where its result lies."""
        return folder / RESULTS / f"{self.digest}.json"

    def result(self, folder: Path) -> dict[str, Any] | None:
        """``{key, value, process}`` if it was done; None if not, or if the file is damaged."""
        try:
            found = json.loads(self.result_file(folder).read_bytes())
        except (OSError, ValueError):
            return None
        complete = isinstance(found, dict) and {"value", "process"} <= set(found)
        return found if complete and all(Path(o).is_file() for o in self.outputs) else None


def to_run(jobs: Iterable[Job], folder: Path) -> list[Job]:
    """The jobs without a result, and the shared ones that these need, in the order given."""
    by_digest = {job.digest: job for job in jobs}
    missing = {d for d, job in by_digest.items() if job.result(folder) is None}
    wanted = [d for d in missing if not by_digest[d].shared]
    chosen: set[str] = set()
    while wanted:
        digest = wanted.pop()
        if digest in missing and digest not in chosen:
            chosen.add(digest)
            wanted += by_digest[digest].needs
    return [job for digest, job in by_digest.items() if digest in chosen]


def log_file(job: Job, folder: Path) -> Path:
    """Where what its process says on stderr lies, while it runs and where it failed."""
    return folder / LOGS / f"{job.digest}.txt"


def remove_logs(jobs: Iterable[Job], folder: Path) -> None:
    """Remove the logs of jobs that have a result: a run was killed behind it."""
    for job in jobs:
        if job.result(folder) is not None:
            log_file(job, folder).unlink(missing_ok=True)


def run_in_child(job: Job, folder: str, threads: int, *needs: object) -> str:
    """Run a job in a fresh process and give its digest; what the process says on stderr is kept where it fails.

    The child ends by itself when this process dies, so that a lost worker leaves none behind. A job that has a result
    is not run: a scheduler asks again for what a lost worker had done, but the result lies in its file. ``needs`` are
    what the scheduler waits for.

    Raises:
        JobError: it failed; the message is its last line.
    """
    place = Path(folder)
    if job.result(place) is not None:
        return job.digest
    request = {**asdict(job), "version": __version__, "result_file": str(job.result_file(place)), "digest": job.digest}
    kept = {name: value for name, value in os.environ.items() if name != WORKERS_OWN}
    environment = {**kept, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    log = log_file(job, place)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", "qhyvit.sweep.child"], stdin=subprocess.PIPE, stdout=stream, stderr=stream,
            env=environment,
        )  # fmt: skip
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            code = child.wait()
        except BrokenPipeError:
            code = child.wait()
        finally:
            child.kill()
    if code:
        raise JobError(job.digest, _reason(code, log))
    log.unlink(missing_ok=True)
    return job.digest


def _reason(code: int, log: Path) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + ("; out of memory?" if name == "SIGKILL" else "")
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"its process ended with code {code}"
