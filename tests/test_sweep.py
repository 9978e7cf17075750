"""Sweeps: specs and their mistakes, and whole sweeps, whose results are made once and gathered."""

import contextlib
import csv
import json
import sys
import threading
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
from qhyvit.sweep import gather, jobs
from qhyvit.sweep.matrix import matrix
from qhyvit.sweep.parts import spans
from qhyvit.sweep.pool import Pool
from qhyvit.sweep.run import sweep
from qhyvit.sweep.spec import read_spec
from qhyvit.tasks import task
from qhyvit.tasks.shared.accuracy import count
from qhyvit.work import FACTS, FLOAT, MODEL, Work, default_preprocess
from qhyvit_device.preprocess import load_image, to_pixels

FOLDERS = '\n[calibration]\nimages = "train"\ncount = 4\n[evaluation]\nimages = "val"\n'
ONE = "models = [{name = 'mobilevit_xxs', random_weights = true}]\n"
GOOD = ONE + 'methods = ["minmax", "percentile"]\nseeds = [1]\n' + FOLDERS


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


def test_a_model_that_lies_in_a_file_is_known_by_its_content(place, small_v1):
    (place / "s.toml").write_text("models = ['net.tflite']\nmethods = ['minmax']\n" + FOLDERS)

    def exported(content):
        (place / "net.tflite").write_bytes(content)
        return next(j for j in matrix(read_spec(place / "s.toml"), place / "out").jobs if j.label.startswith("export"))

    first, again, changed = exported(small_v1.tflite), exported(small_v1.tflite), exported(small_v1.tflite + b"\0")
    assert first.digest == again.digest != changed.digest
    assert first.arguments["model"]["name"] == str(place / "net.tflite")


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
