"""Sweeps: specs and their mistakes, jobs on two workers, one of them killed, results made once and gathered."""

import contextlib
import csv
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo.images import generate
from qhyvit import files, stages
from qhyvit.config import DataConfig, MethodConfig
from qhyvit.errors import InputError, OutputError, UsageError
from qhyvit.evaluation import logits_of
from qhyvit.labels import labelled_images
from qhyvit.latency import default_profile
from qhyvit.sweep import gather, jobs, pool
from qhyvit.sweep.jobs import Job, to_run
from qhyvit.sweep.matrix import matrix
from qhyvit.sweep.parts import spans
from qhyvit.sweep.pool import Pool
from qhyvit.sweep.run import sweep
from qhyvit.sweep.spec import read_spec
from qhyvit.tasks import task
from qhyvit.tasks.shared.accuracy import count
from qhyvit.work import FACTS, FLOAT, MODEL, Work, default_preprocess
from qhyvit_device.preprocess import load_image, to_pixels

ROOT = Path(__file__).parents[1]
FOLDERS = '\n[calibration]\nimages = "train"\ncount = 4\n[evaluation]\nimages = "val"\n'
ONE = "models = [{name = 'mobilevit_xxs', random_weights = true}]\n"
GOOD = ONE + 'methods = ["minmax", "percentile"]\nseeds = [1]\n' + FOLDERS


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


# ---- specs


def spec(tmp_path, text):
    path = tmp_path / "s.toml"
    path.write_text(text)
    return read_spec(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models = [", "is no TOML"),
        ("models = ['mobilevit_xxs']\nmethods = ['minmax']\n" + FOLDERS, "one of weights, pretrained = true or"),
        (
            "models = [{name = 'mobilevit_xxs', weights = 'w', random_weights = true}]\n"
            "methods = ['minmax']\n" + FOLDERS,
            "needs one of weights, pretrained",
        ),
        (
            "models = [{name = 'net.py:make', random_weights = true}]\nmethods = ['minmax']\n" + FOLDERS,
            "keeps its own weights",
        ),
        (
            "models = [{name = 'mobilevit_xxs', random_weights = 'perhaps'}]\nmethods = ['minmax']\n" + FOLDERS,
            "models 1: option random_weights=perhaps: must be true or false",
        ),
        ("methods = ['minmax']\n" + FOLDERS, "needs 'models'"),
        ("models = []\nmethods = ['minmax']\n" + FOLDERS, "models is an empty list"),
        (ONE + "methods = []\n" + FOLDERS, "methods is an empty list"),
        ("models = ['mobilvit_xxs']\nmethods = ['minmax']\n" + FOLDERS, "unknown model 'mobilvit_xxs'; near: mobile"),
        (ONE + "methods = ['minmx']\n" + FOLDERS, "unknown method 'minmx'; near: minmax"),
        (ONE + "methods = ['minmax']\nsseds = [1]\n" + FOLDERS, "s.toml has no option 'sseds'; near: seeds"),
        (ONE + "methods = ['minmax']\nseeds = [1, 1]\n" + FOLDERS, "seeds has 1 twice"),
        (ONE + "methods = ['minmax']\nseeds = 1\n" + FOLDERS, "seeds must be a list, got 1"),
        (ONE + "methods = ['minmax']\nseeds = [true]\n" + FOLDERS, "option seeds 1=True: must be a whole number"),
        (ONE + "methods = ['minmax']\nbits = [3]\n" + FOLDERS, "option bits 1=3: must be a whole number from 4 to 8"),
        (ONE + "methods = ['minmax']\ntargets = ['cpus']\n" + FOLDERS, "unknown target 'cpus'"),
        (
            ONE + "methods = ['minmax']\nbits = [4, 8]\ninteger = [false]\n" + FOLDERS,
            "--bits 4 needs --integer",
        ),
        (
            ONE + "methods = [{name = 'qhyvit', options = {round = 1}}]\n" + FOLDERS,
            "has no option 'round'",
        ),
        (
            ONE + "methods = ['minmax', {name = 'qhyvit', label = 'minmax'}]\n" + FOLDERS,
            "two methods are called 'minmax'",
        ),
        (
            "models = [{name = 'mobilevit_xxs', random_weights = true, size = 128}]\nmethods = ['minmax']\n" + FOLDERS,
            "models 1 has no option 'size'; near: input_size",
        ),
        (ONE + "methods = ['minmax']\n[calibration]\nimages = 'a'\n", "needs 'evaluation'"),
        (ONE + "methods = ['minmax']\n[calibration]\n[evaluation]\n", "needs 'images'"),
    ],
)
def test_a_mistake_in_a_spec_is_told_in_one_line(tmp_path, text, said):
    with pytest.raises(UsageError) as caught:
        spec(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_of_a_spec_are_relative_to_it_and_labels_name_options(tmp_path):
    text = GOOD.replace('"percentile"', '{ name = "qhyvit", options = { rounds = 1 } }')
    found = spec(tmp_path, text)
    assert found.calibration.images == tmp_path / "train"
    assert [m.label for m in found.methods] == ["minmax", "qhyvit (rounds=1)"]
    assert found.bits == (8,)
    assert (found.targets, found.integer) == (("litert",), (True,))


# ---- jobs


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


@contextlib.contextmanager
def locked_elsewhere(path):
    """Another thread holds the lock."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with files.lock(path):
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lock_is_held_by_one(tmp_path):
    again = files.lock(tmp_path / "lock", wait=False)
    with locked_elsewhere(tmp_path / "lock"), pytest.raises(OutputError, match="another process"):
        again.__enter__()
    with files.lock(tmp_path / "lock", wait=False):
        pass


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


# ---- whole sweeps


@pytest.fixture
def place(tmp_path, small_v1):
    """A spec of two builds whose export is there already."""
    generate(tmp_path / "train", 1, seed=11)
    generate(tmp_path / "val", 2, seed=12)
    (tmp_path / "s.toml").write_text(GOOD)
    export = matrix(read_spec(tmp_path / "s.toml"), tmp_path / "out").jobs[0]
    folder = Path(export.arguments["folder"])
    files.write_bytes(folder / FLOAT, small_v1.tflite)
    files.write_text(folder / FACTS, json.dumps(small_v1.facts))
    files.write_text(export.result_file(tmp_path / "out"), json.dumps({"value": {}, "process": {}}))
    return tmp_path


def quiet(what, share=0.0):
    pass


def by_hand(place, small, method):
    """Top-1 and agreement counts of one build, made without a sweep."""
    work = Work(place / f"hand-{method}")
    files.write_bytes(work.folder / FLOAT, small.tflite)
    files.write_text(work.folder / FACTS, json.dumps(small.facts))
    stages.calibrate(work, DataConfig(place / "train", 4), MethodConfig(method, seed=1))
    stages.convert(work)
    labelled = labelled_images(place / "val", None, task("classify"), 10)
    how = default_preprocess(small.facts)
    pixels = [to_pixels(load_image(p), 128, 128, how) for p in labelled.paths]
    floats, found = (logits_of(work.read(name), pixels, how) for name in (FLOAT, MODEL))
    return count(found, labelled.truth, floats)


def test_a_sweep_gives_what_builds_by_hand_give_and_goes_on_where_it_stopped(place, small_v1):
    out, lines = place / "out", []
    found = sweep(place / "s.toml", out, Pool(workers=2), quiet, lines.append)
    assert found.failed == {}
    assert [r["method"] for r in found.rows] == ["minmax", "percentile"]
    for r in found.rows:
        expected = by_hand(place, small_v1, r["method"])
        assert r["images"] == expected.images == 20
        assert r["top1_percent"] == 100 * expected.top1 / 20
        assert r["agreement"] == 100 * expected.agree / 20
        assert (r["gained"], r["lost"]) == (expected.gained, expected.lost)
    with (out / gather.CSV).open() as stream:
        assert [r["job"] for r in csv.DictReader(stream)] == [r["job"] for r in found.rows]
    assert (out / gather.PLOT).read_bytes()[:4] == b"\x89PNG"
    assert not any((out / "builds").iterdir())
    (out / jobs.RESULTS / f"{found.rows[0]['job']}.json").unlink()
    again = sweep(place / "s.toml", out, Pool(workers=1), quiet, lines.append)
    assert again.kept == 1
    plain = [{k: v for k, v in r.items() if k not in gather.TOOK} for r in (*found.rows, *again.rows)]
    assert plain[:2] == plain[2:]
    assert again.rows[1] == found.rows[1]


def test_what_determines_a_build_names_its_result(place):
    def digests():
        return [b.job.digest for b in matrix(read_spec(place / "s.toml"), place / "out").builds]

    first = digests()
    assert len(set(first)) == 2
    for change in (("seeds = [1]", "seeds = [2]"), ("count = 4", "count = 3"), ("[8]", "[7]")):
        (place / "s.toml").write_text("bits = [8]\n" + GOOD)
        assert digests() == first
        (place / "s.toml").write_text(("bits = [8]\n" + GOOD).replace(*change))
        assert not set(digests()) & set(first), change
    (place / "s.toml").write_text(GOOD)
    next((place / "val").rglob("*.jpg")).write_bytes(next((place / "train").rglob("*.jpg")).read_bytes() + b"\0")
    assert not set(digests()) & set(first)


@pytest.mark.slow
def test_a_latency_profile_goes_to_every_build_and_names_its_result(place):
    def builds():
        return matrix(read_spec(place / "s.toml"), place / "out").builds

    first = {b.job.digest for b in builds()}
    (place / "s.toml").write_text('targets = ["pi.json"]\n' + GOOD)
    with pytest.raises(InputError, match=r"pi\.json"):
        builds()
    (place / "pi.json").write_text(replace(default_profile(), name="Pi").to_json())
    found = builds()
    assert [b.job.arguments["config"]["target"]["name"] for b in found] == [str(place / "pi.json")] * 2
    assert not first & {b.job.digest for b in found}
    assert sweep(place / "s.toml", place / "out", Pool(workers=2), quiet, quiet).failed == {}


def test_an_image_in_both_folders_is_refused(place):
    next((place / "val").rglob("*.jpg")).write_bytes(next((place / "train").rglob("*.jpg")).read_bytes())
    with pytest.raises(InputError, match="1 images are in both folders"):
        matrix(read_spec(place / "s.toml"), place / "out")


def test_two_sweeps_in_one_folder_are_refused(place):
    with locked_elsewhere(place / "out" / "lock"), pytest.raises(OutputError, match="another process is at work"):
        sweep(place / "s.toml", place / "out", Pool(workers=1), quiet, quiet)


def test_parquet_without_pyarrow_is_told_before_the_work(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        sweep(place / "s.toml", place / "out", Pool(workers=1), quiet, quiet, parquet=True)


# ---- evaluations in parts


@pytest.mark.parametrize(("images", "workers"), [(1, 1), (15, 2), (650, 2), (650, None), (50_000, 4)])
def test_parts_cover_every_image_once(images, workers):
    assert [i for a, b in spans(images, workers) for i in range(a, b)] == list(range(images))


def test_counts_of_parts_add_up_to_those_of_the_whole():
    rng = np.random.default_rng(0)
    logits, floats = rng.integers(0, 9, (200, 10)).astype(float), rng.normal(size=(200, 10))
    classes = rng.integers(0, 10, 200)
    cuts = [0, 1, 60, 61, 200]
    parts = [count(logits[a:b], classes[a:b], floats[a:b]) for a, b in pairwise(cuts)]
    total = parts[0] + parts[1] + parts[2] + parts[3]
    assert total == count(logits, classes, floats)
    assert total.p_value == count(logits, classes, floats).p_value
    alone = count(logits, classes)
    assert (parts[0] + count(logits[1:], classes[1:])).agree is None
    assert (parts[0] + count(logits[1:], classes[1:])).top5 == alone.top5


def test_a_model_that_lies_in_a_file_is_known_by_its_content(place, small_v1):
    (place / "s.toml").write_text("models = ['net.tflite']\nmethods = ['minmax']\n" + FOLDERS)

    def exported(content):
        (place / "net.tflite").write_bytes(content)
        return next(j for j in matrix(read_spec(place / "s.toml"), place / "out").jobs if j.label.startswith("export"))

    first, again, changed = exported(small_v1.tflite), exported(small_v1.tflite), exported(small_v1.tflite + b"\0")
    assert first.digest == again.digest != changed.digest
    assert first.arguments["model"]["name"] == str(place / "net.tflite")
