"""A sweep from its spec to its table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhyvit import files
from qhyvit.evaluation import shown
from qhyvit.progress import Log, Progress
from qhyvit.sweep import gather
from qhyvit.sweep.jobs import Job, remove_logs, to_run
from qhyvit.sweep.matrix import matrix
from qhyvit.sweep.pool import Pool
from qhyvit.sweep.spec import read_spec
from qhyvit.tasks import task as find_task


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
    for line in whole.notes:
        log(line)
    with files.lock(out / "lock", wait=False):
        remove_logs(whole.jobs, out)
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
    value = result["value"]
    if "alike" not in value:
        return f"{job.label}: {took}"
    what = find_task(value["task"])
    said = [f"{what.columns[name]} {shown(name, figure)}" for name, figure in (value["integer"] or {}).items()][:1]
    kept = f"{what.reading} {shown(what.reading, value['alike']['reading'])}{what.worst_of(value['alike']['each'])}"
    return f"{job.label}: {', '.join([*said, kept, took])}"
