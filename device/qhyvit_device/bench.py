"""Latency of one or several models, interleaved: round by round each has a turn, so that all meet the same machine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device import __version__, board, files, trust
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.interpreter import TfliteFile
from qhyvit_device.pictures import DRAFT_BYTES
from qhyvit_device.preprocess import opened
from qhyvit_device.runner import Model
from qhyvit_device.statistics import Summary, ratio, summarize

Progress = Callable[[str, float], None]
PHASES = ("preprocess", "inference", "postprocess")
MLPERF_RUNS, MLPERF_SECONDS = 1024, 60.0  # MLPerf Mobile's single stream
WINDOW_SECONDS = 10.0  # of a sustained run
WATCH_S = 0.5  # for other programs, before the run


@dataclass(frozen=True)
class BenchSettings:
    """How long: at least ``runs`` inferences and ``seconds`` for each model, after ``warmup`` runs.

    ``turn``: inferences of a model before the next one's turn. At 1 each finds the caches full of what the others left;
    in longer turns most find their own weights there, as a program that runs one model does.
    """

    runs: int = 50
    seconds: float = 5.0
    warmup: int = 5
    threads: int = 1
    cpus: tuple[int, ...] = ()
    turn: int = 1


@dataclass
class MeasuredModel:
    """One model under measurement, and its samples in milliseconds by phase."""

    name: str
    path: Path
    model_file: Path
    init_ms: float
    first_ms: float
    file: TfliteFile
    steps: tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]
    samples: dict[str, list[float]] = field(default_factory=lambda: {p: [] for p in PHASES})

    def once(self) -> None:
        """One timed round."""
        value: Any = None
        prepare, run, finish = self.steps
        t0 = time.perf_counter_ns()
        value = prepare()
        t1 = time.perf_counter_ns()
        value = run(value)
        t2 = time.perf_counter_ns()
        finish(value)
        t3 = time.perf_counter_ns()
        for phase, ns in zip(PHASES, (t1 - t0, t2 - t1, t3 - t2), strict=True):
            self.samples[phase].append(ns / 1e6)

    def clear(self) -> None:
        """Forget all samples."""
        self.samples = {p: [] for p in PHASES}


def _bundle(path: Path, threads: int) -> tuple[TfliteFile, tuple[Any, Any, Any], Path]:
    """A bundle with its test picture, decoded: resizing and codes, inference, what its task makes of the outputs."""
    model = Model.load(path, threads)
    picture = opened(io.BytesIO(model.picture), model.manifest.input.shape, DRAFT_BYTES)
    steps = (lambda: model.prepare(picture), model.run, model.result)
    return model.file, steps, path / model.manifest.model_file


def _bare(path: Path, threads: int) -> tuple[TfliteFile, tuple[Any, Any, Any], Path]:
    """A ``.tflite`` alone: random input of its type, nothing before or behind."""
    file = TfliteFile.load(path, threads)
    shape, dtype = tuple(file.input["shape"]), np.dtype(file.input["dtype"])
    rng = np.random.default_rng(0)
    if dtype.kind == "f":
        feed = rng.random(shape, np.float32).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        feed = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return file, (lambda: feed, file.invoke, lambda codes: codes), path


def open_subject(path: Path, threads: int, name: str | None = None) -> MeasuredModel:
    """Load a bundle folder or a ``.tflite``; times loading and the first inference.

    Raises:
        InputError: missing, or not what it should be.
    """
    if not path.exists():
        raise InputError(f"{path}: no such bundle or model")
    started = time.perf_counter_ns()
    file, steps, model_file = (_bundle if path.is_dir() else _bare)(path, threads)
    loaded = time.perf_counter_ns()
    feed = steps[0]()
    before = time.perf_counter_ns()
    steps[1](feed)
    first = time.perf_counter_ns()
    times = (loaded - started) / 1e6, (first - before) / 1e6
    return MeasuredModel(name or path.name, path, model_file, *times, file, steps)


def _names(paths: Sequence[Path]) -> list[str]:
    """File names where they differ, else paths."""
    names = [p.resolve().name for p in paths]
    return names if len(set(names)) == len(names) else [str(p) for p in paths]


def _pin(cpus: Sequence[int]) -> None:
    if not cpus:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise DeviceError("this system cannot pin a process to processors; leave --cpus out")
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:
        raise DeviceError(f"--cpus {','.join(map(str, cpus))}: {error.strerror}") from error


def rounds(subjects: Sequence[MeasuredModel], settings: BenchSettings, progress: Progress) -> None:
    """Warm up, then rounds of all subjects until both limits are met."""
    for subject in subjects:
        for _ in range(settings.warmup):
            subject.once()
        subject.clear()
    started = time.monotonic()
    done, needed = 0, settings.seconds * len(subjects)
    while done < settings.runs or time.monotonic() - started < needed:
        for subject in subjects:
            for _ in range(settings.turn):
                subject.once()
        done += settings.turn
        share = min(done / settings.runs, (time.monotonic() - started) / max(needed, 1e-9))
        progress("bench", min(share, 1.0))


def sustained(subjects: Sequence[MeasuredModel], minutes: float, progress: Progress) -> list[dict[str, Any]]:
    """Without a pause for ``minutes``: p50 of each model in windows, with clock and temperature at their ends."""
    windows, started = [], time.monotonic()
    while (gone := time.monotonic() - started) < 60 * minutes:
        progress("sustained", gone / (60 * minutes))
        opened = time.monotonic()
        length = min(WINDOW_SECONDS, 60 * minutes - gone)
        for subject in subjects:
            subject.clear()
        while time.monotonic() - opened < length:
            for subject in subjects:
                subject.once()
        now = board.state()
        p50 = {s.name: round(summarize(s.samples["inference"]).p50, 4) for s in subjects}
        clock = max(now.frequency_khz.values(), default=None)
        windows.append({"second": round(time.monotonic() - started, 1), "p50_ms": p50,
                        "temperature_c": now.temperature_c, "frequency_khz": clock,
                        "throttled_now": board.throttling(now.throttled)})  # fmt: skip
    return windows


def peak_memory(path: Path, threads: int) -> float | None:
    """Peak resident size, MiB, of a process of its own that loads the model and runs it; None if it can't be told."""
    code = (
        "import sys, json; from pathlib import Path; from qhyvit_device import bench, board; "
        "bench.open_subject(Path(sys.argv[1]), int(sys.argv[2])).once(); print(json.dumps(board.peak_memory_mib()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(threads)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return None
    found: float | None = json.loads(done.stdout.splitlines()[-1])
    return found


def _result(subject: MeasuredModel, *, memory: bool, threads: int) -> dict[str, Any]:
    phases = {p: summarize(x).to_json() for p, x in subject.samples.items() if x}
    return {
        "model": subject.name, "path": str(subject.path), "file": str(subject.model_file),
        "size_bytes": subject.file.size_bytes,
        "runtime": f"{subject.file.runtime} {subject.file.runtime_version}",
        "delegate_partitions": subject.file.delegate_partitions,
        "init_ms": round(subject.init_ms, 3), "first_inference_ms": round(subject.first_ms, 3), **phases,
        "images_per_second": round(1000 / sum(float(np.mean(x)) for x in subject.samples.values()), 2),
        "peak_memory_mib": peak_memory(subject.path, threads) if memory else None,
        "samples_ms": {p: [round(v, 4) for v in x] for p, x in subject.samples.items()},
    }  # fmt: skip


def _quiet(what: str, share: float) -> None:
    """Says nothing."""


def bench(
    paths: Sequence[Path],
    settings: BenchSettings,
    *,
    minutes: float = 0.0,
    memory: bool = True,
    progress: Progress = _quiet,
) -> dict[str, Any]:
    """Measure models, the first one being what the others are compared with.

    Args:
        paths: bundle folders or ``.tflite`` files.
        minutes: a sustained run afterwards, of so many minutes; 0: none.

    Raises:
        DeviceError: a model cannot be loaded, or the process not pinned.
    """
    _pin(settings.cpus)
    machine, before = board.board(), board.state(watch_s=WATCH_S)
    subjects = [
        open_subject(p, settings.threads, name) for p, name in zip(paths, _names(paths), strict=True)
    ]  # fmt: skip
    rounds(subjects, settings, progress)
    after = board.state()
    results = [_result(s, memory=memory, threads=settings.threads) for s in subjects]
    base, base_name = subjects[0].samples["inference"], subjects[0].name
    for subject, result in zip(subjects[1:], results[1:], strict=True):
        result[f"ratio_to_{base_name}"] = ratio(subject.samples["inference"], base).to_json()
    figures: dict[str, Summary] = {s.name: summarize(s.samples["inference"]) for s in subjects}
    partitions = {s.name: s.file.delegate_partitions for s in subjects}
    found = {
        "schema_version": 1, "version": __version__, "board": machine.to_json(), "before": before.to_json(),
        "after": after.to_json(), "settings": {**vars(settings), "cpus": list(settings.cpus)}, "models": results,
        "warnings": trust.warnings(machine, before, after, figures, partitions, subjects[0].file.runtime),
    }  # fmt: skip
    if minutes > 0:
        found["sustained"] = sustained(subjects, minutes, progress)
    return found


def write_json(path: Path, found: dict[str, Any]) -> None:
    """Write results; the file appears whole.

    Raises:
        DeviceError: it cannot be written.
    """
    files.write(path, (json.dumps(found, indent=1) + "\n").encode())
