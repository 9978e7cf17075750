"""A sweep from its spec to its table, and an evaluation in parts."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.errors import CheckFailedError
from qhyvit.evaluate import Evaluation, Subject, open_subject, score
from qhyvit.sweep import gather
from qhyvit.sweep.jobs import Job, to_run
from qhyvit.sweep.matrix import matrix
from qhyvit.sweep.pool import Pool
from qhyvit.sweep.spec import read_spec
from qhyvit.verify.accuracy import Accuracy

Progress = Callable[[str, float], None]
Log = Callable[[str], None]
SHARD = 64  # images at least, of one part of an evaluation


@dataclass(frozen=True)
class SweepResult:
    """What a sweep has: rows of its table, files written, builds that were there already, failures by label."""

    rows: list[dict[str, Any]]
    written: list[Path]
    kept: int
    failed: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        written = [str(p) for p in self.written]
        return {"rows": self.rows, "files": written, "kept": self.kept, "failed": self.failed}


def sweep(spec: Path, out: Path, pool: Pool, progress: Progress, log: Log, *, parquet: bool = False) -> SweepResult:
    """Run what a spec asks for and ``out`` does not hold yet, then gather all of it.

    Raises:
        UsageError, InputError: a mistake in the spec, something missing, no cluster.
        OutputError: another sweep is at work in ``out``.
    """
    if parquet:
        gather.need_parquet()
    whole = matrix(read_spec(spec), out)
    with files.lock(out / "lock", wait=False):
        waiting = to_run(whole.jobs, out)
        kept = len(whole.builds) - sum(not job.shared for job in waiting)
        if kept:
            log(f"{kept} of {len(whole.builds)} builds are there already")
        ended = 0

        def tell(job: Job, result: dict[str, Any] | None, line: str) -> None:
            nonlocal ended
            ended += 1
            progress("sweep", ended / len(waiting))
            log(f"FAILED {job.label}: {line}" if result is None else _line(job, result))

        progress("sweep", 0.0)
        failed = pool.run(whole.jobs, out, tell)
        rows = gather.rows_of(whole.builds, out)
        written = gather.write(rows, out, parquet=parquet)
    labels = {job.digest: job.label for job in whole.jobs}
    return SweepResult(rows, written, kept, {labels[d]: line for d, line in failed.items()})


def _line(job: Job, result: dict[str, Any]) -> str:
    took = f"{result['process']['seconds']:.0f} s"
    found = result["value"].get("integer")
    if found is None:
        return f"{job.label}: {took}"
    return f"{job.label}: top-1 {found['top1_percent']:.2f} %, agrees {found['agreement_percent']:.2f} %, {took}"


def evaluate_in_parts(
    bundle: Path, images: Path, labels: Path | None, float_model: Path | None, mode: str | None, pool: Pool,
    progress: Progress, log: Log, *, allow: bool = False,
) -> Evaluation:  # fmt: skip
    """:func:`qhyvit.evaluate.evaluate` with the images shared out among processes; the counts add up to the same.

    Raises:
        InputError: see :func:`qhyvit.evaluate.open_subject`.
        CheckFailedError: a part failed, also when tried again.
    """
    subject = open_subject(bundle, images, labels, float_model, mode, log, allow=allow)
    resolved = [None if p is None else str(p.resolve()) for p in (bundle, images, labels, float_model)]
    names = ("bundle", "images", "labels", "float_model")
    arguments = {**dict(zip(names, resolved, strict=True)), "mode": mode}
    folder = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.parts.", dir=bundle.resolve().parent))
    try:
        jobs = [
            Job(f"images {a} to {b - 1}", "qhyvit.sweep.run:evaluate_part", {**arguments, "start": a, "stop": b},
                {"start": a, "stop": b}) for a, b in _parts(subject, pool)
        ]  # fmt: skip
        done = 0

        def tell(job: Job, result: dict[str, Any] | None, line: str) -> None:
            nonlocal done
            done += 1
            progress("evaluate", done / len(jobs))

        failed = pool.run(jobs, folder, tell)
        if failed:
            raise CheckFailedError(f"{len(failed)} of {len(jobs)} parts failed: {next(iter(failed.values()))}")
        results = [job.result(folder) for job in jobs]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    parts = [_evaluation(r["value"]) for r in results if r is not None]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _parts(subject: Subject, pool: Pool) -> list[tuple[int, int]]:
    """Four parts a worker, so that none waits long for the last one, but none too small to pay its start."""
    count = len(subject.labelled.paths)
    size = max(SHARD, -(-count // (4 * (pool.workers or 8))))
    return [(a, min(a + size, count)) for a in range(0, count, size)]


def evaluate_part(
    bundle: str, images: str, labels: str | None, float_model: str | None, mode: str | None, start: int, stop: int
) -> dict[str, Any]:
    """One part, in a process of its own; the images were checked where they were shared out."""
    beside, reference = (None if p is None else Path(p) for p in (labels, float_model))
    subject = open_subject(Path(bundle), Path(images), beside, reference, mode, allow=True)
    return asdict(score(subject, start, stop, lambda what, share: None))


def _evaluation(raw: dict[str, Any]) -> Evaluation:
    floating = None if raw["floating"] is None else Accuracy(**raw["floating"])
    return Evaluation(**{**raw, "integer": Accuracy(**raw["integer"]), "floating": floating})
