"""Jobs on dask.distributed: a local cluster, or one that runs already."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhyvit.errors import UsageError
from qhyvit.sweep.jobs import Job, JobError, run_in_child, to_run
from qhyvit.threads import cores

CONNECT_SECONDS = 20
Ended = Callable[[Job, dict[str, Any] | None, str], None]  # the job, its result or None, why it failed or ""


@dataclass(frozen=True)
class Pool:
    """Where jobs run.

    Args:
        workers: processes of a local cluster, one job at a time each; None for one a core.
        scheduler: address of a running one, in the place of a local cluster; its workers see the same files.
        retries: how often a failed job is tried again.
        threads: that each job may use.
    """

    workers: int | None = None
    scheduler: str | None = None
    retries: int = 1
    threads: int = 1

    def run(self, jobs: Sequence[Job], folder: Path, ended: Ended) -> dict[str, str]:
        """Run what has no result yet; ``ended`` is told of every job that is done or failed, once.

        Returns:
            Why jobs failed, one line by digest.

        Raises:
            UsageError: dask.distributed is not installed, or the scheduler does not answer.
        """
        missing, failed = to_run(jobs, folder), dict[str, str]()
        if not missing:
            return failed
        labels = {job.digest: job.label for job in jobs}
        with self._client() as client:
            for job, error in _outcomes(client, missing, str(folder.resolve()), self):
                line = "" if error is None else _line(job, error, labels)
                result = job.result(folder) if error is None else None
                if error is None and result is None:
                    line = f"no result at {job.result_file(folder)}; the workers must see this folder"
                if line:
                    failed[job.digest] = line
                ended(job, result, line)
        return failed

    @contextlib.contextmanager
    def _client(self) -> Iterator[Any]:
        try:
            import distributed
        except ImportError as error:
            raise UsageError(f"dask.distributed is missing ({error}); pip install 'qhyvit[sweep]'") from error
        if self.scheduler is not None:
            try:
                client = distributed.Client(self.scheduler, timeout=CONNECT_SECONDS)
            except (OSError, ValueError) as error:
                raise UsageError(f"no dask scheduler answers at {self.scheduler}: {error}") from error
            with client:
                yield client
            return
        workers = self.workers or cores()
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):  # fmt: skip
            yield client


def _outcomes(client: Any, jobs: Sequence[Job], folder: str, pool: Pool) -> Iterator[tuple[Job, BaseException | None]]:
    """Each job as it ends, with what it raised."""
    from distributed import as_completed

    futures: dict[str, Any] = {}
    for job in jobs:  # needed ones come first
        needs = [futures[d] for d in job.needs if d in futures]
        futures[job.digest] = client.submit(
            run_in_child, job, folder, pool.threads, *needs, key=job.digest, retries=pool.retries, pure=False
        )
    by_key = {job.digest: job for job in jobs}
    for future in as_completed(futures.values()):
        yield by_key[future.key], future.exception()


def _line(job: Job, error: BaseException, labels: dict[str, str]) -> str:
    if not isinstance(error, JobError):
        return f"{type(error).__name__}: {error}".splitlines()[0]
    if error.digest != job.digest:
        return f"it needs {labels.get(error.digest, error.digest)}, which failed"
    return error.line
