"""Jobs of a sweep on two workers, one of them killed: each is made once, and told where it fails."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from qhyvit.errors import UsageError
from qhyvit.sweep import jobs, pool
from qhyvit.sweep.jobs import Job, to_run
from qhyvit.sweep.pool import Pool

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def children_find_the_tests(monkeypatch):
    here = os.pathsep.join(str(ROOT / p) for p in ("pipeline", "device", "."))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))


def job(index, function="double", needs=(), shared=False, **arguments):
    arguments = arguments or {"x": index}
    return Job(f"job {index}", f"tests._jobs:{function}", arguments, {"index": index}, tuple(needs), shared=shared)


class Log:
    """Notes what a pool tells."""

    def __init__(self):
        self.results, self.lines, self.times = {}, {}, {}

    def __call__(self, job, result, line):
        self.times[job.label] = self.times.get(job.label, 0) + 1
        if result is None:
            self.lines[job.label] = line
        else:
            self.results[job.label] = result["value"]


def test_a_job_keeps_its_own_threads_and_the_systems_memory(tmp_path):
    """A worker's own environment makes it trim memory at every turn; the job's process does not."""
    log = Log()
    only = Job("job 0", "tests._jobs:variables", {}, {})
    Pool(1, retries=0, threads=3).run([only], tmp_path, log)
    found = log.results["job 0"]
    assert found["OMP_NUM_THREADS"] == "3"
    assert "MALLOC_TRIM_THRESHOLD_" not in found


def test_each_job_runs_once_in_a_fresh_process_and_a_second_call_runs_nothing(tmp_path):
    shared = job(10, shared=True)
    some = [shared, *(job(i, needs=[shared.digest]) for i in range(4)), job(11, shared=True)]
    log = Log()
    assert Pool(workers=2).run(some, tmp_path, log) == {}
    assert {k: v["twice"] for k, v in log.results.items()} == {f"job {i}": 2 * i for i in (0, 1, 2, 3, 10)}
    assert len({v["pid"] for v in log.results.values()}) == 5
    assert set(log.times.values()) == {1}
    again = Log()
    Pool(workers=2).run(some, tmp_path, again)
    assert again.times == {}
    some[1].result_file(tmp_path).write_text("{half")
    assert [j.label for j in to_run(some, tmp_path)] == ["job 0"]


def test_a_failed_job_is_tried_again_then_told_and_others_go_on(tmp_path):
    cured, bug = job(1, "fail", kind="cured"), job(2, "fail", kind="bug")
    some = [
        cured, bug, job(3), job(4, needs=[cured.digest]),
        job(5, "fail_once", mark=str(tmp_path / "mark")), job(6, "none_such"),
    ]  # fmt: skip
    log = Log()
    failed = Pool(workers=2, retries=1).run(some, tmp_path, log)
    assert log.lines["job 1"] == "no such image"
    assert log.lines["job 2"] == "ValueError: a bug"
    assert log.lines["job 4"] == "it needs job 1, which failed"
    assert "none_such" in log.lines["job 6"]
    assert set(failed.values()) == set(log.lines.values())
    assert log.results["job 5"] == "second time"
    assert log.results["job 3"]["twice"] == 6
    assert "Traceback" in (tmp_path / jobs.LOGS / f"{bug.digest}.txt").read_text()


@pytest.mark.parametrize("same", [True, False], ids=["the one that made a result", "another one"])
def test_a_killed_worker_loses_nothing_and_nothing_is_made_twice(tmp_path, same):
    """The scheduler asks again for what a dead worker had made: the result lies in its file and is not made again."""
    some = [job(i, "hold", number=i, folder=str(tmp_path)) for i in range(6)]
    log, killed = Log(), []

    def ended(job, result, line):
        log(job, result, line)
        if not killed:
            victim = next_running(tmp_path, int(result["value"]), same)
            killed.append(victim)
            os.kill(victim[1], signal.SIGKILL)
            wait_until(lambda: not alive(victim[2]))  # the job's process ends with its worker
            (tmp_path / "go").touch()

    assert Pool(workers=2).run(some, tmp_path, ended) == {}
    assert log.results == {f"job {i}": i for i in range(6)}
    assert set(log.times.values()) == {1}
    assert sorted((tmp_path / "ended").read_text().split()) == [str(i) for i in range(6)]
    started = [line.split()[0] for line in (tmp_path / "started").read_text().splitlines()]
    assert started.count(str(killed[0][0])) >= 2
    assert len(list((tmp_path / jobs.RESULTS).iterdir())) == 6


def test_a_job_that_has_a_result_is_not_run_again(tmp_path):
    only = job(0, "hold", number=0, folder=str(tmp_path))
    assert [jobs.run_in_child(only, str(tmp_path), 1) for _ in range(2)] == [only.digest] * 2
    assert (tmp_path / "ended").read_text() == "0\n"


def next_running(place, finished, same):
    """(number, worker, process) of a job that started and has not ended, on the worker of the finished one or not."""
    found = []

    def look():
        jobs_started = [tuple(map(int, line.split())) for line in (place / "started").read_text().splitlines()]
        worker = next(w for number, w, _ in jobs_started if number == finished)
        found[:] = [j for j in jobs_started if j[0] != finished and (j[1] == worker) == same]
        return found

    wait_until(look)
    return found[-1]


def wait_until(true):
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_scheduler_that_runs_already_is_used(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        log = Log()
        assert Pool(scheduler=cluster.scheduler_address).run([job(1)], tmp_path, log) == {}
    assert log.results["job 1"]["twice"] == 2


def test_no_scheduler_and_no_dask_are_one_line_each(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CONNECT_SECONDS", 0.2)
    with pytest.raises(UsageError, match="no dask scheduler answers at tcp://127"):
        Pool(scheduler="tcp://127.0.0.1:9").run([job(1)], tmp_path, Log())
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'qhyvit\[sweep\]'"):
        Pool().run([job(1)], tmp_path, Log())


def test_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "__version__", "0.0.0")
    with pytest.raises(jobs.JobError, match=r"the sweep was started by 0\.0\.0"):
        jobs.run_in_child(job(1), str(tmp_path), 1)


def listening():
    """Addresses on which this process and its children listen, as /proc writes them."""
    family = {os.getpid()}
    stats = [p.read_text().rpartition(")") for p in Path("/proc").glob("[0-9]*/stat") if p.exists()]
    parents = {int(head.split()[0]): int(rest.split()[1]) for head, _, rest in stats}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    sockets = set()
    for pid in family:
        for entry in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(entry))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_pool_listens_on_loopback_alone(tmp_path):
    found = []
    Pool(workers=1).run([job(1)], tmp_path, lambda *_: found.extend(listening()))
    assert found
    assert {address.partition(":")[0] for address in found} == {"0100007F"}
