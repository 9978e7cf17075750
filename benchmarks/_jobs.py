"""Rows of a benchmark as jobs: each in a process of its own, so that its memory and processor time are its own."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks._files import RESULTS
from qhyvit import console
from qhyvit.sweep.jobs import LOGS, Job
from qhyvit.sweep.pool import Pool

LOG_LINES = 30  # of a job that failed


def add_options(parser: argparse.ArgumentParser, what: str, out: str) -> None:
    """The options of a benchmark whose rows are jobs, ``what`` in words, into the results' file ``out``."""
    parser.add_argument("--jobs", type=int, default=1, help=f"{what} at once, each with its share of the cores")
    parser.add_argument("--again", action="store_true", help="make rows again that are there")
    parser.add_argument("--out", type=Path, default=RESULTS / out)


def run_jobs(what: str, jobs: Sequence[Job], workers: int, take: Callable[[Any], None]) -> bool:
    """``take`` is given what each job gives as it ends; those that fail are told; True if none did.

    Results are kept nowhere else: the rows in the CSV say what is done. Each job has its share of the cores.
    """
    failed = ended_count = 0
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    with console.talk() as talk, tempfile.TemporaryDirectory() as place:

        def ended(job: Job, result: dict[str, Any] | None, line: str) -> None:
            nonlocal failed, ended_count
            ended_count += 1
            talk.progress(what, ended_count / len(jobs))
            if result is not None:
                take(result["value"])
                return
            failed += 1
            log = Path(place) / LOGS / f"{job.digest}.txt"
            said = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.is_file() else []
            talk.log("\n".join([*said, f"FAILED {job.label}: {line}"]))

        Pool(workers, retries=0, threads=threads).run(jobs, Path(place), ended)
    return failed == 0
