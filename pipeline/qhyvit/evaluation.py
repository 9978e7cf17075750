"""Accuracy of a bundle as deployed: the interpreter runs the file that ships, and the float file beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import data, files
from qhyvit.errors import InputError
from qhyvit.labels import labelled_images, order_hint, tell_apart
from qhyvit.progress import Log, Progress, silent
from qhyvit.tasks import task as find_task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.score import Paired, Score, paired
from qhyvit.tasks.shared.task import Alike, Task
from qhyvit.threads import cores, shared_out
from qhyvit_device.manifest import Manifest
from qhyvit_device.preprocess import Preprocess, load_image, load_input, normalize, quantize
from qhyvit_device.runner import Model, TfliteFile


def feed_of(file: TfliteFile, pixels: np.ndarray, how: Preprocess) -> np.ndarray:
    """What ``file`` takes for one image [H, W, C]: float or codes, NHWC or NCHW."""
    scale, zero_point = file.input["quantization"]
    name = np.dtype(file.input["dtype"]).name
    floating = name.startswith("float")
    x = normalize(pixels, how) if floating else quantize(pixels, how, float(scale), int(zero_point), name)
    return x if tuple(file.input["shape"])[1:] == x.shape else x.transpose(2, 0, 1)


def logits_of(model: bytes, pixels: Iterable[np.ndarray], how: Preprocess) -> np.ndarray:
    """Values of all outputs, one after the other, [N, outputs] float64, of the file as the interpreter runs it."""
    file = TfliteFile(model)
    return np.stack([values_of(file, file.invoke(feed_of(file, p, how))) for p in pixels])


def values_of(file: TfliteFile, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """What output codes stand for, one after the other, [outputs] float64."""
    found = []
    for details, codes in zip(file.outputs, outputs, strict=True):
        scale, zero_point = details["quantization"]
        values = codes.ravel().astype(np.float64)
        floating = np.dtype(details["dtype"]).name.startswith("float")
        found.append(values if floating else (values - zero_point) * scale)
    return np.concatenate(found)


@dataclass(frozen=True)
class Evaluation:
    """Float and integer on the same images.

    ``integer`` and ``floating`` are None without labels; ``alike`` and ``paired`` without a float file. ``each``: see
    :meth:`qhyvit.tasks.shared.task.Alike.by_name`.
    """

    task: Task
    images: int
    integer: Score | None
    floating: Score | None
    alike: Alike | None
    paired: Paired | None
    resize_mode: str
    profile: str = "integer"
    each: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Titles of :meth:`rows`."""
        figures = () if self.integer is None else tuple(self.task.columns.values())
        beside = () if self.alike is None else (self.task.reading,)
        test = () if self.paired is None else ("gained / lost", f"p ({self.paired.test})")
        return ("model", *figures, *beside, *test)

    def rows(self) -> list[tuple[Any, ...]]:
        """Table rows."""
        found: list[tuple[Any, ...]] = []
        for name, score in (("float", self.floating), (self.profile, self.integer)):
            if name == "float" and (score is None or self.alike is None):
                continue
            figures = () if score is None else tuple(shown(f, score.figures[f]) for f in self.task.columns)
            beside: tuple[str, ...] = ()
            if self.alike is not None:
                beside = ("",) if name == "float" else (shown(self.task.reading, self.alike.reading),)
            test: tuple[str, ...] = ()
            if self.paired is not None:
                split = f"{self.paired.gained} / {self.paired.lost}"
                test = ("", "") if name == "float" else (split, f"{self.paired.p_value:.3g}")
            found.append((name, *figures, *beside, *test))
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        alike = None
        if self.alike is not None:
            alike = {"share": self.alike.share, "reading": self.alike.reading, "text": self.alike.text,
                     "figures": dict(self.alike.figures), "each": dict(self.each)}  # fmt: skip
        return {
            "task": self.task.name, "images": self.images, "resize_mode": self.resize_mode, "profile": self.profile,
            "integer": None if self.integer is None else dict(self.integer.figures),
            "float": None if self.floating is None else dict(self.floating.figures), "alike": alike,
            "paired": None if self.paired is None else self.paired.to_json(),
        }  # fmt: skip


def shown(name: str, figure: float) -> str:
    """A figure of a table: two digits of a percentage, four of others."""
    return f"{figure:.2f}" if name.endswith(("percent", "%")) else f"{figure:.4f}"


def evaluated(
    task: Task, layout: Layout, integer: np.ndarray, floating: np.ndarray | None, truth: Any, mode: str,
    profile: str = "integer", labels: Sequence[str] = (),
) -> Evaluation:  # fmt: skip
    """What values [N, outputs] of the integer file say, beside those of the float file and what is right.

    Args:
        labels: names of the values, where somebody gave some.
    """
    alike = None if floating is None else task.alike(floating, integer, layout)
    each = {} if alike is None else alike.by_name(layout, labels if tell_apart(labels) else ())
    if truth is None or task.score is None:
        return Evaluation(task, len(integer), None, None, alike, None, mode, profile, each)
    score, reference = task.score(integer, truth, layout), None
    if floating is not None:
        reference = task.score(floating, truth, layout)
    test = None if reference is None else paired(score, reference)
    return Evaluation(task, len(integer), score, reference, alike, test, mode, profile, each)


def float_path(bundle: Path, given: Path | None, manifest: Manifest) -> Path | None:
    """The float file named, or the one of the build if it lies there unchanged; else None."""
    if given is not None:
        return given
    path = files.beside(bundle, ".work") / "float.tflite"
    recorded = manifest.created_by.get("float_sha256")
    return path if path.is_file() and files.sha256(path.read_bytes()) == recorded else None


def float_file(bundle: Path, given: Path | None, model: Model) -> TfliteFile | None:
    """The float file of :func:`float_path` in its interpreter.

    Raises:
        InputError: it is that of another network.
    """
    path = float_path(bundle, given, model.manifest)
    if path is None:
        return None
    found, height, width, channels = TfliteFile.load(path), *model.manifest.input.shape
    takes, wanted = tuple(map(int, found.input["shape"])), (1, height, width, channels)
    if takes not in (wanted, (1, channels, height, width)):
        raise InputError(f"{path} takes {list(takes)}, the bundle {list(wanted)}: name the float file of this network")
    gives = [[int(n) for n in details["shape"]] for details in found.outputs]
    wants = [list(output.shape) for output in model.manifest.outputs]
    if [_longer_sides(s) for s in gives] != [_longer_sides(s) for s in wants]:
        has, due = (", ".join(map(str, shapes[:8])) for shapes in (gives, wants))
        raise InputError(f"{path} has outputs {has}, the bundle {due}: name the float file of this network")
    return found


def _longer_sides(shape: Sequence[int]) -> list[int]:
    """A shape without its ones: values lie alike with and without them."""
    return [n for n in shape if n != 1]


def squash_hint(paths: list[Path]) -> str | None:
    """A line for images that all are squares of one size: their source may have squashed them; None for others."""
    if data.are_arrays(paths):
        return None
    sizes = {load_image(p).size for p in paths[:8]}
    width, height = next(iter(sizes))
    if len(paths) < 2 or len(sizes) > 1 or width != height:
        return None
    return f"all images are {width}x{width}: if they were squashed to that, --resize-mode squash leaves nothing out"


def predict(
    model: Model, reference: TfliteFile | None, pixels: Callable[[int], np.ndarray], how: Preprocess, count: int,
    progress: Progress, threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
    """Values [N, outputs] float32 of the integer file and, where there is one, of the float file.

    Each thread has interpreters of its own, which use no others: outputs do not depend on how many threads there are.

    Args:
        pixels: gives image or array ``i`` of ``count`` as the models see it, [H, W, C]; called by several threads.
        threads: that share the images; None: as many as there are cores.
    """
    runners = [file for file in (model.file, reference) if file is not None]
    tools = [runners, *([copy(file) for file in runners] for _ in range(min(threads or cores(), count) - 1))]

    def values(mine: list[TfliteFile], i: int) -> list[np.ndarray]:
        image = pixels(i)
        return [values_of(f, f.invoke(feed_of(f, image, how))).astype(np.float32) for f in mine]

    found = [np.stack(rows) for rows in zip(*shared_out(values, count, tools, "evaluate", progress), strict=True)]
    return found[0], found[1] if reference is not None else None


@dataclass(frozen=True)
class Subject:
    """A bundle, its float file if there is one, and the images that both are to run on."""

    model: Model
    reference: TfliteFile | None
    labelled: data.Labelled
    how: Preprocess

    @property
    def task(self) -> Task:
        """What the outputs mean."""
        return find_task(self.model.manifest.task)

    @property
    def layout(self) -> Layout:
        """How they lie."""
        return layout_of(self.model.manifest)


def layout_of(manifest: Manifest) -> Layout:
    """Names and shapes of a bundle's outputs."""
    return Layout(tuple(o.name for o in manifest.outputs), tuple(o.shape[1:] for o in manifest.outputs))


def open_subject(
    bundle: Path, images: Path, labels: Path | None, float_model: Path | None, mode: str | None,
    class_map: tuple[int, ...] | None = None,
) -> Subject:  # fmt: skip
    """Open what an evaluation needs.

    Raises:
        InputError: images or labels are missing or unfit.
    """
    model = Model.load(bundle)
    facts = model.manifest
    found = labelled_images(images, labels, find_task(facts.task), facts.classes, class_map, model.labels)
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
    """Look at every image and label map before the work.

    Args:
        mode: resize mode asked for; where it is None, ``log`` is told where images may want another than the default.
        allow: images that were used to calibrate.

    Raises:
        InputError: some were used to calibrate, or some images or label maps cannot be read.
    """
    paths, facts = subject.labelled.paths, subject.model.manifest
    if subject.labelled.truth is None and subject.reference is None:
        raise InputError("there is nothing to compare with: give --labels, or --float FLOAT.tflite")
    used = set() if allow else used_to_calibrate(facts)
    shared = sum(h in used for h in data.hash_files(paths)) if used else 0
    if shared:
        raise InputError(f"{shared} of these images were used to calibrate; use others, or --allow-calibration-images")
    data.check_labelled(subject.labelled)
    if hint := order_hint(subject.labelled.names, subject.model.labels):
        log(hint)
    by_default = mode is None and subject.how == facts.preprocess and subject.how.mode == "crop"
    if by_default and (hint := squash_hint(paths)):
        log(hint)


def run_part(
    subject: Subject, start: int, stop: int, progress: Progress, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """What both models give for the images ``start`` to ``stop`` (not included); see :func:`predict`."""
    paths, facts = subject.labelled.paths[start:stop], subject.model.manifest

    def pixels(i: int) -> np.ndarray:
        return load_input(paths[i], facts.input.shape, subject.how)

    return predict(subject.model, subject.reference, pixels, subject.how, len(paths), progress, threads)


def judged(subject: Subject, integer: np.ndarray, floating: np.ndarray | None) -> Evaluation:
    """What the values of all images say."""
    return evaluated(subject.task, subject.layout, integer, floating, subject.labelled.truth, subject.how.mode,
                     subject.model.manifest.profile, subject.model.labels)  # fmt: skip


def evaluate(
    bundle: Path, images: Path, labels: Path | None, float_model: Path | None, mode: str | None,
    progress: Progress, log: Log = silent, *, allow: bool = False, class_map: tuple[int, ...] | None = None,
) -> Evaluation:  # fmt: skip
    """Run a bundle and its float model on images, with labels where the task needs some.

    Raises:
        InputError: see :func:`open_subject` and :func:`check_subject`; or there is neither a label nor a float file.
    """
    subject = open_subject(bundle, images, labels, float_model, mode, class_map)
    check_subject(subject, mode, log, allow=allow)
    return judged(subject, *run_part(subject, 0, len(subject.labelled.paths), progress))
