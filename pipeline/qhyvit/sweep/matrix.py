"""The jobs of a sweep: one export and one float reference a model, and one build for every combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qhyvit import data, files
from qhyvit.bundle import read_label_names
from qhyvit.config import BuildConfig, DataConfig
from qhyvit.errors import InputError
from qhyvit.labels import order_hint
from qhyvit.sweep.jobs import Job
from qhyvit.sweep.spec import EvaluationSpec, MethodSpec, ModelSpec, Spec
from qhyvit.targets import target
from qhyvit_device.preprocess import FOLDER_FILE, images_in

EXPORTS, BUILDS = "exports", "builds"
TASKS = "qhyvit.sweep.tasks"
WEIGHTS_SEED = 0  # of models without weights; a sweep's seeds are those of calibration


@dataclass(frozen=True)
class Build:
    """One combination, and the job that makes it."""

    model: ModelSpec
    method: MethodSpec
    config: BuildConfig
    job: Job


@dataclass(frozen=True)
class Matrix:
    """Every job of a sweep, needed ones first, its builds in the order of the spec, and what should be known of it."""

    jobs: tuple[Job, ...]
    builds: tuple[Build, ...]
    notes: tuple[str, ...] = ()


def matrix(spec: Spec, out: Path) -> Matrix:
    """What there is to do for a spec, with its results below ``out``.

    Raises:
        InputError: images, labels, weights or a latency profile are missing, an image is in both folders, or columns of
            labels are not a model's values.
    """
    out = out.resolve()
    hashes = _Hashes(spec)
    jobs: list[Job] = []
    builds: list[Build] = []
    notes: list[str] = []
    for model in spec.models:
        export, names = _export(model, out), _names(model, hashes.columns, notes)
        reference = _reference(model, export, spec.evaluation, names, hashes.evaluation, out)
        jobs += [export, reference]
        for method, config in spec.builds(model):
            job = _build(f"{model.label}, {method.label}", config, reference, spec.evaluation, hashes, out)
            builds.append(Build(model, method, config, job))
    return Matrix((*jobs, *(b.job for b in builds)), tuple(builds), tuple(notes))


def _names(model: ModelSpec, columns: Sequence[str], notes: list[str]) -> list[str]:
    """Names of a model's values, by which ``columns`` of labels go; none where labels are classes or nobody gave names.

    Raises:
        InputError: the file of names cannot be read, or the columns have other names.
    """
    names = read_label_names(model.label_names) if columns and model.label_names is not None else []
    if hint := order_hint(columns, names, "with label_names of the model they go by the names"):
        notes.append(f"{model.label}: {hint}")
    return names


class _Hashes:
    """What the images are, so that a result belongs to them and not to their names."""

    def __init__(self, spec: Spec) -> None:
        contents = data.by_content(images_in(spec.calibration.images))
        found = data.test_files(spec.evaluation.images, spec.evaluation.labels)
        self.columns, tests = found.columns, data.hash_files(found.paths)
        both = contents.keys() & set(tests)
        if both:
            raise InputError(f"{len(both)} images are in both folders: calibration and evaluation must differ")
        labelled = files.sha256("\n".join([*tests, found.labels]).encode())
        self.evaluation = {**_way(spec.evaluation), "labelled": labelled}
        count = spec.calibration.count
        self.calibration: dict[int, dict[str, Any]] = {}
        for seed in spec.seeds:
            chosen = [*data.draw(contents, count, seed)]
            self.calibration[seed] = {**_way(spec.calibration), "images": data.combined_hash(chosen)}
        self.latency = {name: target(name).latency.digest for name in spec.targets}


def _way(images: DataConfig | EvaluationSpec) -> dict[str, Any]:
    beside = images.images / FOLDER_FILE
    said = files.sha256(beside.read_bytes()) if beside.is_file() else None
    return {"count": images.count, "resize_mode": images.resize_mode, "beside": said}


def _export(model: ModelSpec, out: Path) -> Job:
    from qhyvit.models.importers import identity

    key: dict[str, Any] = {"model": model.name, "classes": model.classes, "input_size": model.input_size,
                           "task": model.task,
                           "pixels": [model.mean, model.std, model.channel_order]}  # fmt: skip
    if held := identity(model.name):
        key |= {"model": model.label, "files": held}
    elif files.OWN in model.name:
        source = Path(model.name.partition(files.OWN)[0] + ".py")
        key |= {"model": model.label, "source": files.sha256(files.read_bytes(source, "model file"))}
    weights = None if model.weights is None else files.sha256(files.read_bytes(model.weights, "weights file"))
    key |= {"job": "export", "weights": weights}
    draft = Job(f"export {model.label}", f"{TASKS}:export", {}, key, shared=True)
    folder = out / EXPORTS / draft.digest
    arguments = {"folder": str(folder), "model": model.plain.to_json(), "seed": WEIGHTS_SEED}
    outputs = tuple(str(folder / name) for name in ("float.tflite", "export.json"))
    return replace(draft, arguments=arguments, outputs=outputs)


def _reference(
    model: ModelSpec, export: Job, images: EvaluationSpec, names: list[str], hashes: dict[str, Any], out: Path
) -> Job:  # fmt: skip
    key = {"job": "reference", "export": dict(export.key), "evaluation": hashes, "names": names}
    draft = Job(f"float {model.label}", f"{TASKS}:reference", {}, key, needs=(export.digest,), shared=True)
    target = Path(export.arguments["folder"]) / f"float-{draft.digest}.npy"
    arguments = {"folder": export.arguments["folder"], "target": str(target), "evaluation": images.to_json(),
                 "names": names}  # fmt: skip
    return replace(draft, arguments=arguments, outputs=(str(target),))


def _build(
    label: str, config: BuildConfig, reference: Job, images: EvaluationSpec, hashes: _Hashes, out: Path
) -> Job:  # fmt: skip
    method, aim = config.method, config.target.found
    key = {
        "job": "build", "reference": dict(reference.key), "method": method.to_json(), "target": aim.called,
        "profile": aim.profile, "calibration": hashes.calibration[method.seed],
        "latency": hashes.latency[config.target.name],
    }  # fmt: skip
    bits = method.bits if method.has_int4 else f"{method.bits} bits"
    label = f"{label}, {bits}, seed {method.seed}, {config.target.name}, {aim.profile}"
    draft = Job(label, f"{TASKS}:build", {}, key, needs=(*reference.needs, reference.digest))
    folder = out / BUILDS / draft.digest
    arguments = {
        "folder": str(folder), "export": reference.arguments["folder"], "reference": reference.arguments["target"],
        "config": config.to_json(), "evaluation": images.to_json(), "names": reference.arguments["names"],
    }  # fmt: skip
    return replace(draft, arguments=arguments)
