"""Very many inferences of one process: every result is the first one's, and memory does not grow.

``QHYVIT_ENDURANCE``: how many (``make endurance``: a hundred thousand).
"""

import inspect
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhyvit_device import Model
from tests.fuzz import place

MANY = int(os.environ.get("QHYVIT_ENDURANCE", "3000"))
THREADS, KINDS = 8, 7
GROWTH = 2048  # kB
AHEAD = 500  # pictures that lie in a watched folder at once

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


def resident(process="self"):
    """RSS in kB."""
    with open(f"/proc/{process}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    place.make(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(KINDS):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{('png', 'jpg', 'bmp', 'webp', 'ppm')[i % 5]}")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("interpreter_threads", [1, 4])
def test_no_result_of_eight_threads_differs(bundle, interpreter_threads):
    model = Model.load(bundle, interpreter_threads)
    rng = np.random.default_rng(0)
    shape, dtype = tuple(model.file.input["shape"][1:]), model.file.input["dtype"]
    feeds = [rng.integers(-128, 128, shape, dtype) for _ in range(KINDS)]
    expected = [Model.load(bundle).file.run(x) for x in feeds]
    assert len({e.tobytes() for e in expected}) == KINDS
    gate = threading.Barrier(THREADS)

    def work(start):
        gate.wait()
        kinds = [(start + i) % KINDS for i in range(MANY // 10)]
        return sum(not np.array_equal(model.file.run(feeds[k]), expected[k]) for k in kinds)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [0] * THREADS


def test_memory_of_very_many_pictures_does_not_grow(tiny, photos):
    """In a process of its own: pytest's grows by itself."""
    code = f"""
import sys
from qhyvit_device import Model
{inspect.getsource(resident)}
model, photos = Model.load("b"), sys.argv[1:]
first = [model.classify(p) for p in photos]
for _ in range(300): [model.classify(p) for p in photos]
before, wrong = resident(), 0
for i in range({MANY}):
    k = i % len(photos)
    wrong += model.classify(photos[k]) != first[k]
print(wrong, before, resident())
"""
    command = [sys.executable, "-c", code, *map(str, photos)]
    done = subprocess.run(command, cwd=tiny, capture_output=True, text=True, check=True)
    wrong, before, after = map(int, done.stdout.split())
    print(f"{MANY} pictures: {before} kB, then {after} kB")
    assert wrong == 0
    assert after - before < GROWTH


def test_memory_of_a_watch_at_full_speed_does_not_grow(tiny, photos, tmp_path):
    watched, ready = tmp_path / "watched", tmp_path / "ready"
    watched.mkdir()
    ready.mkdir()
    command = [sys.executable, "-m", "qhyvit_device", "classify", "b", "--watch", str(watched), "--json"]
    warm = 2 * AHEAD + MANY // 10  # tables of Python's own have their size by then
    whole = warm + MANY
    process = subprocess.Popen([*command, "--frames", str(whole)], cwd=tiny, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    while not process.stderr.readline().startswith("watching "):
        assert process.poll() is None
    contents = [(p.suffix, p.read_bytes()) for p in photos]
    answers, before, put = {}, 0, 0

    def add():
        nonlocal put
        suffix, content = contents[put % KINDS]
        (ready / f"{put:07d}{suffix}").write_bytes(content)
        (ready / f"{put:07d}{suffix}").rename(watched / f"{put:07d}{suffix}")
        put += 1

    try:
        for _ in range(AHEAD):
            add()
        for number, line in enumerate(process.stdout):
            found = json.loads(line)
            path = Path(found["image"])
            answers.setdefault(int(path.stem) % KINDS, set()).add(json.dumps(found["predictions"]))
            path.unlink()
            if put < whole:
                add()
            if number == warm:
                before = resident(process.pid)
            if number == whole - 2:
                after = resident(process.pid)
        assert process.wait(60) == 0, process.stderr.read()
    finally:
        process.kill()
    print(f"{MANY} watched pictures: {before} kB, then {after} kB")
    assert [len(found) for found in answers.values()] == [1] * KINDS
    assert after - before < GROWTH
