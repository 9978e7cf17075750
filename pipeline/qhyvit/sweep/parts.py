"""An evaluation shared out among processes: each runs both files on its images, and the outputs are judged together."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import files
from qhyvit.errors import CheckFailedError
from qhyvit.evaluation import Evaluation, check_subject, judged, open_subject, run_part
from qhyvit.progress import Log, Progress
from qhyvit.sweep.jobs import Job
from qhyvit.sweep.pool import Pool

SMALLEST = 16  # images of one part: fewer would not pay for the start of a process
PARTS_A_WORKER = 4  # so that none waits long for the last one
WORKERS_ASSUMED = 8  # of a scheduler that runs already


def evaluate_in_parts(
    bundle: Path, images: Path, labels: Path | None, float_model: Path | None, mode: str | None, pool: Pool,
    progress: Progress, log: Log, *, allow: bool = False, class_map: tuple[int, ...] | None = None,
) -> Evaluation:  # fmt: skip
    """What :func:`qhyvit.evaluation.evaluate` gives, from many processes.

    Raises:
        InputError: see :func:`qhyvit.evaluation.evaluate`.
        CheckFailedError: a part failed, also when tried again.
    """
    subject = open_subject(bundle, images, labels, float_model, mode, class_map)
    check_subject(subject, mode, log, allow=allow)
    named = {"bundle": bundle, "images": images, "labels": labels, "float_model": float_model}
    arguments = {**{k: None if p is None else str(p.resolve()) for k, p in named.items()}, "mode": mode,
                 "class_map": class_map}  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.parts.", dir=bundle.resolve().parent))
    jobs = [_job(arguments, a, b, folder) for a, b in spans(len(subject.labelled.paths), pool.workers)]
    try:
        _run(jobs, folder, pool, progress)
        found = [files.unpack_arrays(Path(job.outputs[0]).read_bytes(), job.label) for job in jobs]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    integer, floating = (
        np.concatenate([part[name] for part in found]) if name in found[0] else None for name in ("integer", "float")
    )
    assert integer is not None
    return judged(subject, integer, floating)


def _job(arguments: dict[str, Any], start: int, stop: int, folder: Path) -> Job:
    key, target = {"start": start, "stop": stop}, str(folder / f"{start}.npz")
    draft = Job(f"images {start} to {stop - 1}", f"{__name__}:part", {**arguments, **key, "target": target}, key)
    return replace(draft, outputs=(target,))


def spans(count: int, workers: int | None) -> list[tuple[int, int]]:
    """(first, behind the last) of each part of ``count`` images."""
    size = max(SMALLEST, -(-count // (PARTS_A_WORKER * (workers or WORKERS_ASSUMED))))
    return [(a, min(a + size, count)) for a in range(0, count, size)]


def _run(jobs: list[Job], folder: Path, pool: Pool, progress: Progress) -> None:
    done: list[Job] = []

    def ended(job: Job, result: dict[str, Any] | None, line: str) -> None:
        if result is None:
            raise CheckFailedError(f"{job.label}: {line}")
        done.append(job)
        progress("evaluate", len(done) / len(jobs))

    pool.run(jobs, folder, ended)


def part(
    bundle: str, images: str, labels: str | None, float_model: str | None, mode: str | None,
    class_map: list[int] | None, start: int, stop: int, target: str,
) -> dict[str, Any]:  # fmt: skip
    """One part, in a process of its own; that the images are fit was checked where they were shared out."""
    beside, reference = (None if p is None else Path(p) for p in (labels, float_model))
    classes = None if class_map is None else tuple(class_map)
    subject = open_subject(Path(bundle), Path(images), beside, reference, mode, classes)
    integer, floating = run_part(subject, start, stop, lambda what, share: None, threads=1)
    arrays = {"integer": integer} if floating is None else {"integer": integer, "float": floating}
    files.write_bytes(Path(target), files.pack_arrays(arrays))
    return {"images": stop - start}
