"""Accuracy of a bundle as deployed: the interpreter runs the file that ships, and the float file beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import data, files
from qhyvit.errors import InputError
from qhyvit.progress import Log, Progress, silent
from qhyvit.verify.accuracy import Accuracy, count
from qhyvit_device.manifest import Manifest
from qhyvit_device.preprocess import Preprocess, load_image, load_input, normalize, quantize
from qhyvit_device.runner import Model, TfliteFile


def labelled_images(folder: Path, labels: Path | None, outputs: int) -> data.Labelled:
    """Images of a labelled folder for a model with ``outputs`` classes.

    Raises:
        InputError: see :func:`qhyvit.data.read_labels` and :func:`qhyvit.data.check_classes`.
    """
    found = data.read_labels(folder, labels)
    data.check_classes(found.classes, outputs)
    return found


def feed_of(file: TfliteFile, pixels: np.ndarray, how: Preprocess) -> np.ndarray:
    """What ``file`` takes for one image [H, W, C]: float or codes, NHWC or NCHW."""
    scale, zero_point = file.input["quantization"]
    name = np.dtype(file.input["dtype"]).name
    floating = name.startswith("float")
    x = normalize(pixels, how) if floating else quantize(pixels, how, float(scale), int(zero_point), name)
    return x if tuple(file.input["shape"])[1:] == x.shape else x.transpose(2, 0, 1)


def logits_of(model: bytes, pixels: Iterable[np.ndarray], how: Preprocess) -> np.ndarray:
    """Float logits [N, classes] of the file as the interpreter runs it."""
    file = TfliteFile(model)
    scale, zero_point = file.output["quantization"]
    codes = np.stack([file.run(feed_of(file, p, how)) for p in pixels]).astype(np.float64)
    floating = np.dtype(file.output["dtype"]).name.startswith("float")
    return codes if floating else (codes - zero_point) * scale


@dataclass(frozen=True)
class Evaluation:
    """Float and integer on the same images."""

    images: int
    integer: Accuracy
    floating: Accuracy | None
    resize_mode: str
    profile: str = "integer"

    columns = ("model", "top-1 %", "top-5 %", "agrees with float %", "gained / lost", "p (McNemar)")

    def rows(self) -> list[tuple[Any, ...]]:
        """Table rows."""
        found: list[tuple[Any, ...]] = []
        for name, a in (("float", self.floating), (self.profile, self.integer)):
            if a is None:
                continue
            shares = [f"{100 * v / a.images:.2f}" for v in (a.top1, a.top5)]
            if a.agree is None or a.p_value is None:
                found.append((name, *shares, "", "", ""))
            else:
                split = f"{a.gained} / {a.lost}"
                found.append((name, *shares, f"{100 * a.agree / a.images:.2f}", split, f"{a.p_value:.3g}"))
        return found

    def __add__(self, other: Evaluation) -> Evaluation:
        """Both parts of a set of images together."""
        floating = None
        if self.floating is not None and other.floating is not None:
            floating = self.floating + other.floating
        integer = self.integer + other.integer
        return replace(self, images=self.images + other.images, integer=integer, floating=floating)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        floating = None if self.floating is None else self.floating.to_json()
        facts = {"images": self.images, "resize_mode": self.resize_mode, "profile": self.profile}
        return {**facts, "integer": self.integer.to_json(), "float": floating}


def float_file(bundle: Path, given: Path | None, model: Model) -> TfliteFile | None:
    """The float file named, or the one of the build if it lies there unchanged."""
    path = given or files.beside(bundle, ".work") / "float.tflite"
    if given is None:
        recorded = model.manifest.created_by.get("float_sha256")
        if not path.is_file() or files.sha256(path.read_bytes()) != recorded:
            return None
    return TfliteFile.load(path)


def squash_hint(paths: list[Path]) -> str | None:
    """A line for images that all are squares of one size: their source may have squashed them; None for others."""
    if data.are_arrays(paths):
        return None
    sizes = {load_image(p).size for p in paths[:8]}
    width, height = next(iter(sizes))
    if len(paths) < 2 or len(sizes) > 1 or width != height:
        return None
    return f"all images are {width}x{width}: if they were squashed to that, --resize-mode squash leaves nothing out"


@dataclass(frozen=True)
class Predictions:
    """Logits [N, classes] of the integer file and, where there is one, of the float file, on the same images.

    ``pixels(i)``: image i as the models see it, [H, W, C]; ``classes``: [N] int64, None without labels.
    """

    names: tuple[str, ...]
    classes: np.ndarray | None
    integer: np.ndarray
    floating: np.ndarray | None
    pixels: Callable[[int], np.ndarray]


def predict(
    model: Model, reference: TfliteFile | None, names: Sequence[str], pixels: Callable[[int], np.ndarray],
    how: Preprocess, classes: np.ndarray | None, progress: Progress,
) -> Predictions:  # fmt: skip
    """Run both files on images given by their number.

    Raises:
        InputError: the bundle's input is not integer.
    """
    facts = model.manifest.input
    if facts.scale is None or facts.zero_point is None:
        raise InputError("the bundle's input is not integer")
    integer, floating = [], []
    for i in range(len(names)):
        progress("evaluate", i / len(names))
        image = pixels(i)
        integer.append(_logits(model, quantize(image, how, facts.scale, facts.zero_point, facts.dtype)))
        if reference is not None:
            floating.append(reference.run(normalize(image, how)))
    return Predictions(
        tuple(names), classes, np.stack(integer), np.stack(floating) if floating else None, pixels
    )  # fmt: skip


def _logits(model: Model, codes: np.ndarray) -> np.ndarray:
    """Values [outputs] of the first output, float32."""
    return model.run(codes).dequantized().ravel()


@dataclass(frozen=True)
class Subject:
    """A bundle, its float file if there is one, and the labelled images that both are to run on."""

    model: Model
    reference: TfliteFile | None
    labelled: data.Labelled
    how: Preprocess


def open_subject(
    bundle: Path, images: Path, labels: Path | None, float_model: Path | None, mode: str | None
) -> Subject:
    """Open what an evaluation needs.

    Raises:
        InputError: images or labels are missing or unfit.
    """
    model = Model.load(bundle)
    facts = model.manifest
    found = labelled_images(images, labels, facts.classes)
    if facts.input.scale is None or facts.input.zero_point is None:
        raise InputError("the bundle's input is not integer")
    how = data.preprocess_for(images, facts.preprocess, mode)
    return Subject(model, float_file(bundle, float_model, model), found, how)


def used_to_calibrate(manifest: Manifest) -> set[str]:
    """Hashes of the images that a bundle's calibration saw.

    Raises:
        InputError: the manifest does not say so in a list of texts.
    """
    found = manifest.created_by.get("calibration_image_hashes", [])
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError("manifest: created_by.calibration_image_hashes is no list of texts")
    return set(found)


def check_subject(subject: Subject, mode: str | None, log: Log, *, allow: bool) -> None:
    """Look at every image before the work; ``log`` is told where they may want another ``mode`` than the default.

    Raises:
        InputError: some were used to calibrate (``allow``: they may be), or some cannot be read.
    """
    paths, facts = subject.labelled.paths, subject.model.manifest
    used = set() if allow else used_to_calibrate(facts)
    shared = sum(h in used for h in data.hash_files(paths)) if used else 0
    if shared:
        raise InputError(f"{shared} of these images were used to calibrate; use others, or --allow-calibration-images")
    data.check_readable(paths)
    by_default = mode is None and subject.how == facts.preprocess and subject.how.mode == "crop"
    if by_default and (hint := squash_hint(paths)):
        log(hint)


def score(subject: Subject, start: int, stop: int, progress: Progress) -> Evaluation:
    """Run both models on the images ``start`` to ``stop`` (not included)."""
    facts, how = subject.model.manifest, subject.how
    paths, classes = subject.labelled.paths[start:stop], subject.labelled.classes[start:stop]

    def pixels(i: int) -> np.ndarray:
        return load_input(paths[i], facts.input.shape, how)

    names = [p.name for p in paths]
    got = predict(subject.model, subject.reference, names, pixels, how, classes, progress)
    scored = None if got.floating is None else count(got.floating, classes)
    return Evaluation(len(names), count(got.integer, classes, got.floating), scored, how.mode, facts.profile)


def evaluate(
    bundle: Path, images: Path, labels: Path | None, float_model: Path | None, mode: str | None,
    progress: Progress, log: Log = silent, *, allow: bool = False,
) -> Evaluation:  # fmt: skip
    """Run a bundle and its float model on labelled images.

    Raises:
        InputError: see :func:`open_subject` and :func:`check_subject`.
    """
    subject = open_subject(bundle, images, labels, float_model, mode)
    check_subject(subject, mode, log, allow=allow)
    return score(subject, 0, len(subject.labelled.paths), progress)
