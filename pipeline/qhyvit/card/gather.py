"""Finds out what a card says: from the bundle, from images, from a bench."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhyvit import evaluation, files
from qhyvit.card.facts import NOT_STATED, Card, Figure, Measured, Speed
from qhyvit.data import hash_files, preprocess_for
from qhyvit.progress import Log, Progress, silent
from qhyvit.tasks.shared.score import Truth
from qhyvit.verify.census import census
from qhyvit.work import Work
from qhyvit_device import bench, board, runner
from qhyvit_device import manifest as manifests
from qhyvit_device.manifest import FILE_NAME, Manifest
from qhyvit_device.matching import matches
from qhyvit_device.preprocess import images_in

CONFIDENCE = 0.95
RUNS = 20  # inferences at least, of a bench
READS = {"classify": "classify", "multilabel": "classify", "regress": "classify", "embed": "embed",
         "segment": "segment"}  # fmt: skip


@dataclass(frozen=True)
class CardRequest:
    """What a card is to be made of.

    Args:
        images: labelled ones to measure on; None: no accuracy.
        labels, float_model, resize_mode, class_map: see :func:`qhyvit.evaluation.evaluate`.
        bench_seconds: how long to measure times; None: not at all.
        licence: of the weights.
    """

    bundle: Path
    images: Path | None = None
    labels: Path | None = None
    float_model: Path | None = None
    resize_mode: str | None = None
    bench_seconds: float | None = None
    licence: str = NOT_STATED
    class_map: tuple[int, ...] | None = None


def make(request: CardRequest, progress: Progress = silent, log: Log = silent) -> Card:
    """The card of a bundle.

    Raises:
        QhyvitError: no bundle, images that cannot be measured on, or no interpreter.
    """
    model = runner.Model.load(request.bundle)
    manifest, name = model.manifest, request.bundle.resolve().name
    counted = census(files.read_bytes(request.bundle / manifest.model_file, "model"))
    reference = evaluation.float_file(request.bundle, request.float_model, model)
    return Card(
        name, bundle_digest(request.bundle), manifest.model, manifest.task, manifest.profile,
        f"{[int(n) for n in model.file.input['shape']]} {manifest.input.dtype}",
        {o.name: f"{list(o.shape)} {o.dtype}" for o in manifest.outputs}, manifest.has_random_weights, request.licence,
        counted.size_bytes, None if reference is None else reference.size_bytes,
        {f"{op} {dtype}": n for (op, dtype), n in sorted(counted.ops.items())},
        dict(sorted(counted.not_delegated.items())), len(counted.float_tensors), counted.oldest_runtime,
        _made_by(manifest), *_verified(manifest), _proven(manifest),
        None if request.images is None else _accuracy(request, progress, log),
        None if request.bench_seconds is None else _speed(request, progress), _lines(manifest, name),
    )  # fmt: skip


def _made_by(manifest: Manifest) -> dict[str, Any]:
    """What a bundle says of how it was made, without the list of its calibration images."""
    known = {k: v for k, v in manifest.created_by.items() if k not in ("calibration_image_hashes", "against_float")}
    return {**known, "versions": dict(manifest.versions)}


def _verified(manifest: Manifest) -> tuple[str, float | None]:
    """Agreement of the build's own verification, in words and as a share; the manifest may hold anything there."""
    found = manifest.created_by.get("against_float")
    alike = found.get("alike") if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(alike, Mapping):
        return "", None
    share = alike.get("share")
    words = f"{alike.get('text')}, of {found.get('images')} images in the verification of the build"
    return words, share if isinstance(share, float | int) and matches(share, float, 1.0) else None


def _proven(manifest: Manifest) -> dict[str, str]:
    """The target that the build proved the file for, and how; the manifest may hold anything there."""
    found = manifest.created_by.get("target")
    name, proof = (found.get(key) if isinstance(found, Mapping) else None for key in ("name", "proof"))
    return {name: proof} if isinstance(name, str) and isinstance(proof, str) else {}


def bundle_digest(bundle: Path) -> str:
    """Hash of a bundle's manifest, which names the hashes of all its other files."""
    return files.sha256(files.read_bytes(bundle / FILE_NAME, "manifest"))


def images_digest(images: Path, labels: Path | None, class_map: tuple[int, ...] | None = None) -> str:
    """Hash of the images of a folder, by their names, and of what is right about them.

    Raises:
        InputError: no such folder, or one of the files cannot be read.
    """
    truth = labels or images / "labels.csv"
    named = {str(path.relative_to(images)): path for path in images_in(images)}
    if truth.is_dir():
        named |= {f"label {path.relative_to(truth)}": path for path in images_in(truth)}
    elif truth.is_file():
        named["labels"] = truth
    hashes = hash_files([*named.values()])
    return files.sha256(json.dumps([[*zip(named, hashes, strict=True)], class_map]).encode())


def key_of(request: CardRequest, images_sha256: str) -> str:
    """Hash of all that an evaluation follows from: both files, images, labels, resize mode, the tools and our code.

    Args:
        images_sha256: of the request's images (:func:`images_digest`).

    Raises:
        QhyvitError: no bundle, or files that cannot be read.
    """
    assert request.images is not None
    manifest = manifests.load(request.bundle / FILE_NAME)
    reference = evaluation.float_path(request.bundle, request.float_model, manifest)
    return Work.digest({
        "bundle": bundle_digest(request.bundle),
        "float": None if reference is None else files.sha256(files.read_bytes(reference, "float model")),
        "images": images_sha256,
        "mode": preprocess_for(request.images, manifest.preprocess, request.resize_mode).mode,
    })  # fmt: skip


def interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's interval at 95 % of a share, in percent (Wilson 1927; scipy's)."""
    from scipy.stats import binomtest

    found = binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _bounds(percent: float | None, images: int, *, share: bool) -> tuple[float | None, float | None]:
    return interval(round(percent * images / 100), images) if share and percent is not None else (None, None)


def _figure(name: str, integer: float, floating: float | None, images: int, *, share: bool) -> Figure:
    low, high = _bounds(integer, images, share=share)
    return Figure(name, integer, low, high, floating, *_bounds(floating, images, share=share))


def _accuracy(request: CardRequest, progress: Progress, log: Log) -> Measured:
    assert request.images is not None
    found = evaluation.evaluate(
        request.bundle, request.images, request.labels, request.float_model, request.resize_mode, progress, log,
        class_map=request.class_map,
    )  # fmt: skip
    digest = images_digest(request.images, request.labels, request.class_map)
    shares = found.task.truth is Truth.CLASS  # one thing is right of an image, so a percentage counts images
    figures = {} if found.integer is None else found.integer.figures
    beside = {} if found.floating is None else found.floating.figures
    alike, test = found.alike, found.paired
    split: tuple[int | None, int | None, float | None] = (None, None, None)
    if test is not None:
        split = test.gained, test.lost, test.p_value
    agreement = None
    if alike is not None:
        agreement = _figure(found.task.reading, alike.reading, None, found.images, share=shares)
    return Measured(
        found.images, request.images.resolve().name, digest, key_of(request, digest), found.resize_mode,
        tuple(_figure(n, v, beside.get(n), found.images, share=shares and n.endswith("_percent"))
              for n, v in figures.items() if n in found.task.columns),
        agreement, *split, each=dict(found.each),
    )  # fmt: skip


def _speed(request: CardRequest, progress: Progress) -> Speed:
    assert request.bench_seconds is not None
    settings = bench.BenchSettings(runs=RUNS, seconds=request.bench_seconds)
    found = bench.bench([request.bundle], settings, progress=progress)
    (measured,), machine = found["models"], board.board()
    x = measured["inference"]
    names = (machine.board, machine.processor, machine.machine, f"{machine.cores} cores", ", ".join(machine.features))
    return Speed(
        ", ".join(n for n in names if n), measured["runtime"], settings.threads, x["count"], x["p50"], x["p90"],
        x["p99"], measured["first_inference_ms"], measured["init_ms"], measured["peak_memory_mib"],
        tuple(found["warnings"]),
    )  # fmt: skip


def _lines(manifest: Manifest, name: str) -> tuple[str, ...]:
    command = READS.get(manifest.task, "run")
    photo = "photo.jpg" if manifest.input.channel_order else "input.npy"
    return (
        "pip install qhyvit", "qhyvit-device doctor", f"qhyvit-device info {name}",
        f"qhyvit-device {command} {name} {photo}", f"qhyvit-device bench {name}",
    )  # fmt: skip
