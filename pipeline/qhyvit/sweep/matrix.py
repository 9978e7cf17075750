"""The jobs of a sweep: one export and one float reference a model, and one build for every combination."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from qhyvit import data, files, stages
from qhyvit.errors import InputError
from qhyvit.methods import method
from qhyvit.models._source import is_own
from qhyvit.sweep.jobs import Job
from qhyvit.sweep.spec import ImagesSpec, MethodSpec, ModelSpec, Spec
from qhyvit_device.preprocess import FOLDER_FILE, images_in

EXPORTS, BUILDS = "exports", "builds"
TASKS = "qhyvit.sweep.tasks"
WEIGHTS_SEED = 0  # of models without weights; a sweep's seeds are those of calibration


@dataclass(frozen=True)
class Build:
    """One combination, and the job that makes it."""

    model: ModelSpec
    method: MethodSpec
    bits: int
    seed: int
    profile: str
    job: Job


@dataclass(frozen=True)
class Matrix:
    """Every job of a sweep, needed ones first, and its builds in the order of the spec."""

    jobs: tuple[Job, ...]
    builds: tuple[Build, ...]


def matrix(spec: Spec, out: Path) -> Matrix:
    """What there is to do for a spec, with its results below ``out``.

    Raises:
        InputError: images, labels, weights or a latency profile are missing, or an image is in both folders.
    """
    out = out.resolve()
    hashes = _Hashes(spec)
    jobs: list[Job] = []
    builds: list[Build] = []
    for model in spec.models:
        export = _export(model, out)
        reference = _reference(model, export, spec.evaluation, hashes.evaluation, out)
        jobs += [export, reference]
        rest = product(spec.methods, spec.bits, spec.seeds, spec.profiles)
        builds += [_build(model, *combination, reference, spec, hashes, out) for combination in rest]
    return Matrix((*jobs, *(b.job for b in builds)), tuple(builds))


class _Hashes:
    """What the images are, so that a result belongs to them and not to their names."""

    def __init__(self, spec: Spec) -> None:
        paths = images_in(spec.calibration.folder)
        listed = data.read_labels(spec.evaluation.folder, spec.evaluation.labels)
        of = dict(zip(paths, data.hash_files(paths), strict=True))
        tests = data.hash_files(listed.paths)
        both = set(of.values()) & set(tests)
        if both:
            raise InputError(f"{len(both)} images are in both folders: calibration and evaluation must differ")
        pairs = [f"{h} {c}" for h, c in zip(tests, listed.classes.tolist(), strict=True)]
        self.evaluation = {**_way(spec.evaluation), "labelled": files.sha256("\n".join(pairs).encode())}
        count = spec.calibration.count or len(paths)
        self.calibration: dict[int, dict[str, Any]] = {}
        for seed in spec.seeds:
            chosen = [of[p] for p in data.choose(paths, count, seed)]
            self.calibration[seed] = {**_way(spec.calibration), "images": data.combined_hash(chosen)}
        self.latency = stages.latency_of(spec.latency).digest


def _way(images: ImagesSpec) -> dict[str, Any]:
    beside = images.folder / FOLDER_FILE
    said = files.sha256(beside.read_bytes()) if beside.is_file() else None
    return {"count": images.count, "resize_mode": images.resize_mode, "beside": said}


def _plain(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _export(model: ModelSpec, out: Path) -> Job:
    key: dict[str, Any] = {"model": model.name, "classes": model.classes, "input_size": model.input_size}
    if is_own(model.name):
        source = Path(model.name.partition(".py:")[0] + ".py")
        key |= {"model": model.label, "source": files.sha256(files.read_bytes(source, "model file"))}
    weights = None if model.weights is None else files.sha256(files.read_bytes(model.weights, "weights file"))
    key |= {"job": "export", "weights": weights}
    draft = Job(f"export {model.label}", f"{TASKS}:export", {}, key, shared=True)
    folder = out / EXPORTS / draft.digest
    arguments = {
        "folder": str(folder), "model": model.name, "weights": _plain(model.weights), "classes": model.classes,
        "input_size": model.input_size, "seed": WEIGHTS_SEED,
        "random_weights": model.random_weights,
    }  # fmt: skip
    outputs = tuple(str(folder / name) for name in ("float.tflite", "export.json"))
    return Job(draft.label, draft.function, arguments, key, outputs=outputs, shared=True)


def _evaluation(images: ImagesSpec) -> dict[str, Any]:
    return {
        "images": str(images.folder), "labels": _plain(images.labels), "count": images.count,
        "resize_mode": images.resize_mode,
    }  # fmt: skip


def _reference(model: ModelSpec, export: Job, images: ImagesSpec, hashes: dict[str, Any], out: Path) -> Job:
    key = {"job": "reference", "export": dict(export.key), "evaluation": hashes}
    draft = Job(f"float {model.label}", f"{TASKS}:reference", {}, key)
    target = Path(export.arguments["folder"]) / f"float-{draft.digest}.npy"
    arguments = {"folder": export.arguments["folder"], "target": str(target), "evaluation": _evaluation(images)}
    return Job(
        draft.label, draft.function, arguments, key, needs=(export.digest,), outputs=(str(target),), shared=True
    )


def _build(
    model: ModelSpec, chosen: MethodSpec, bits: int, seed: int, profile: str, reference: Job, spec: Spec,
    hashes: _Hashes, out: Path,
) -> Build:  # fmt: skip
    what = {"method": chosen.name, "bits": bits, "seed": seed, "profile": profile}
    key = {
        "job": "build", "reference": dict(reference.key), **what, "calibration": hashes.calibration[seed],
        "options": method(chosen.name).complete(chosen.options), "latency": hashes.latency,
    }  # fmt: skip
    label = f"{model.label}, {chosen.label}, {bits} bits, seed {seed}, {profile}"
    draft = Job(label, f"{TASKS}:build", {}, key)
    arguments = {
        **what, "folder": str(out / BUILDS / draft.digest), "export": reference.arguments["folder"],
        "reference": reference.arguments["target"], "options": dict(chosen.options),
        "images": str(spec.calibration.folder), "count": spec.calibration.count,
        "calibration_mode": spec.calibration.resize_mode, "evaluation": _evaluation(spec.evaluation),
        "latency": _plain(spec.latency),
    }  # fmt: skip
    job = Job(label, draft.function, arguments, key, needs=(*reference.needs, reference.digest))
    return Build(model, chosen, bits, seed, profile, job)
