"""One model for many threads, forked and spawned processes: every result is the one that a model alone gives."""

import multiprocessing
import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from qhyvit_device import Model, runner

THREADS, RUNS, KINDS = 8, 60, 7


@pytest.fixture(scope="module")
def feeds(bundle):
    model = Model.load(bundle)
    rng = np.random.default_rng(0)
    shape, dtype = tuple(model.file.input["shape"][1:]), model.file.input["dtype"]
    return [rng.integers(-128, 128, shape, dtype) for _ in range(KINDS)]


@pytest.fixture(scope="module")
def expected(bundle, feeds):
    model = Model.load(bundle)
    return [model.file.run(x) for x in feeds]


@pytest.fixture(params=[1, 4], ids=["1 thread", "4 threads"])
def model(bundle, request):
    return Model.load(bundle, request.param)


def wrong(model, feeds, expected, start=0, runs=RUNS):
    """How many results differ."""
    kinds = [(start + i) % KINDS for i in range(runs)]
    return sum(not np.array_equal(model.file.run(feeds[k]), expected[k]) for k in kinds)


def test_threads_share_a_model(model, feeds, expected):
    gate = threading.Barrier(THREADS)

    def work(start):
        gate.wait()
        return wrong(model, feeds, expected, start)

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(work, range(THREADS))) == [0] * THREADS


def test_threads_classify_with_one_model(bundle, tmp_path):
    model = Model.load(bundle)
    paths = []
    for i in range(KINDS):
        pixels = np.random.default_rng(i).integers(0, 256, (50 + i, 60, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    alone = [model.classify(p, 10) for p in paths]

    def work(start):
        order = [(start + i) % KINDS for i in range(30)]
        return [model.classify(paths[k], 10) == alone[k] for k in order]

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(all(found) for found in pool.map(work, range(THREADS)))


def test_threads_load_at_once_and_leave_stderr_as_it_was(bundle, feeds, expected):
    stderr = sys.stderr
    with ThreadPoolExecutor(THREADS) as pool:
        models = list(pool.map(lambda _: Model.load(bundle), range(16)))
    assert sys.stderr is stderr
    assert all(wrong(m, feeds, expected, runs=KINDS) == 0 for m in models)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_while_threads_run_has_a_model_that_works(model, feeds, expected):
    done = threading.Event()

    def work():
        while not done.is_set():
            model.run(feeds[0])

    workers = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(4):
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    os.write(write, str(wrong(model, feeds, expected, runs=KINDS)).encode())
                finally:
                    os._exit(0)
            os.close(write)
            with os.fdopen(read, "rb") as answer:
                assert answer.read() == b"0"
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
    for worker in workers:
        worker.join()
    assert wrong(model, feeds, expected) == 0


def test_a_spawned_process_takes_a_model_along(bundle, feeds, expected):
    model = Model.load(bundle)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(wrong, [(model, feeds, expected, i, KINDS) for i in range(2)]) == [0, 0]
    again = pickle.loads(pickle.dumps(model))
    assert again.manifest == model.manifest
    assert again.labels == model.labels


def test_what_an_interpreter_raises_when_it_runs_is_one_line(bundle, feeds):
    class Broken:
        def set_tensor(self, index, array):
            raise RuntimeError("tensor data is null.\nNode 3")

    model = Model.load(bundle)
    model.file._started = Broken()
    with pytest.raises(runner.InputError, match=r"refuses the model: tensor data is null\.$"):
        model.run(feeds[0])
