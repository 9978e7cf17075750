"""An evaluation shared out among processes: each counts its images, and the counts add up."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qhyvit.errors import CheckFailedError
from qhyvit.evaluation import Evaluation, check_subject, open_subject, score
from qhyvit.progress import Log, Progress
from qhyvit.sweep.jobs import Job
from qhyvit.sweep.pool import Pool
from qhyvit.verify.accuracy import Accuracy

SMALLEST = 16  # images of one part: fewer would not pay for the start of a process
PARTS_A_WORKER = 4  # so that none waits long for the last one
WORKERS_ASSUMED = 8  # of a scheduler that runs already


def evaluate_in_parts(
    bundle: Path, images: Path, labels: Path | None, float_model: Path | None, mode: str | None, pool: Pool,
    progress: Progress, log: Log, *, allow: bool = False,
) -> Evaluation:  # fmt: skip
    """What :func:`qhyvit.evaluation.evaluate` gives, from many processes.

    Raises:
        InputError: see :func:`qhyvit.evaluation.evaluate`.
        CheckFailedError: a part failed, also when tried again.
    """
    subject = open_subject(bundle, images, labels, float_model, mode)
    check_subject(subject, mode, log, allow=allow)
    named = {"bundle": bundle, "images": images, "labels": labels, "float_model": float_model}
    arguments = {**{k: None if p is None else str(p.resolve()) for k, p in named.items()}, "mode": mode}
    jobs = [
        Job(f"images {a} to {b - 1}", f"{__name__}:part", {**arguments, "start": a, "stop": b}, {"start": a, "stop": b})
        for a, b in spans(len(subject.labelled.paths), pool.workers)
    ]
    folder = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.parts.", dir=bundle.resolve().parent))
    try:
        found = _run(jobs, folder, pool, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    total = found[0]
    for other in found[1:]:
        total = total + other
    return total


def spans(count: int, workers: int | None) -> list[tuple[int, int]]:
    """(first, behind the last) of each part of ``count`` images."""
    size = max(SMALLEST, -(-count // (PARTS_A_WORKER * (workers or WORKERS_ASSUMED))))
    return [(a, min(a + size, count)) for a in range(0, count, size)]


def _run(jobs: list[Job], folder: Path, pool: Pool, progress: Progress) -> list[Evaluation]:
    found: list[Evaluation] = []

    def ended(job: Job, result: dict[str, Any] | None, line: str) -> None:
        if result is None:
            raise CheckFailedError(f"{job.label}: {line}")
        found.append(_evaluation(result["value"]))
        progress("evaluate", len(found) / len(jobs))

    pool.run(jobs, folder, ended)
    return found


def part(
    bundle: str, images: str, labels: str | None, float_model: str | None, mode: str | None, start: int, stop: int
) -> dict[str, Any]:
    """One part, in a process of its own; that the images are fit was checked where they were shared out."""
    beside, reference = (None if p is None else Path(p) for p in (labels, float_model))
    subject = open_subject(Path(bundle), Path(images), beside, reference, mode)
    return asdict(score(subject, start, stop, lambda what, share: None))


def _evaluation(raw: dict[str, Any]) -> Evaluation:
    floating = None if raw["floating"] is None else Accuracy(**raw["floating"])
    return Evaluation(**{**raw, "integer": Accuracy(**raw["integer"]), "floating": floating})
