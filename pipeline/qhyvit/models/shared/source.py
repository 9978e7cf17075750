"""Where a model comes from: the zoo, timm, a hub, a user's own factory (``FILE.py:FUNCTION``), or a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from qhyvit.errors import UsageError
from qhyvit.files import is_model_file
from qhyvit.models import find_variant
from qhyvit.models.importers import importer_of
from qhyvit.models.shared.described import GENERIC as GENERIC
from qhyvit.models.shared.described import Size, described
from qhyvit.models.shared.described import Source as Source
from qhyvit.models.shared.given_weights import TIMM, Weights, filled, published
from qhyvit.models.shared.given_weights import check_weights as check_weights
from qhyvit.models.shared.input_facts import Pixels, normalisation, whole
from qhyvit.models.shared.modules import Reversed
from qhyvit.models.shared.own import called, copied, is_own, plain
from qhyvit.models.shared.pretrained import PRETRAINED, create, is_published
from qhyvit.models.shared.submodules import with_equivalents
from qhyvit.models.shared.weights import load_into, settle
from qhyvit.progress import silent
from qhyvit.tasks import fitting_task
from qhyvit_device.arrays import MOST_SIDE

LARGEST_CLASSES = 1_000_000


def open_source(
    model: str | nn.Module, weights: Weights = None, classes: int | None = None, size: int | Size | None = None,
    seed: int = 0, *, random_weights: bool = False, pixels: Pixels | None = None, task: str | None = None,
) -> Source:  # fmt: skip
    """Build the model and give it its weights; without a file a factory's or a module's are its own.

    Args:
        model: a name of the zoo, ``timm/NAME``, ``hf-hub:OWNER/NAME`` and ``local-dir:FOLDER`` (whose weights are those
            published there), ``FILE.py:FUNCTION``, a file (:data:`qhyvit.files.MODEL_FILES`), or a module (it is left
            as it is).
        size: height and width in pixels, or one number for both; None: the model's own.
        random_weights: give a name random ones by ``seed``, for trials.
        pixels: what is known of the input besides what the model says.
        task: what the outputs mean (:mod:`qhyvit.tasks`); None: what outputs of such shapes mostly mean.

    Raises:
        UsageError: no such model or task, outputs that are another task's, facts missing that only the user knows, or
            see :func:`check_weights`.
        InputError, WeightsError: see :func:`qhyvit.models.shared.weights.load_into`.
        ExportError: the factory failed, or what it gives does not run.
    """
    sides, pixels = None if size is None else _sides(size), pixels or Pixels()
    classes = None if classes is None else whole("the number of classes", classes, LARGEST_CLASSES)
    check_weights(model, weights, random_weights=random_weights)
    file = weights if isinstance(weights, Path) else None
    if isinstance(model, nn.Module):
        found = _given(model, file, classes, sides, pixels)
    elif is_model_file(model):
        found = _file(Path(model), classes, sides, pixels)
    elif is_own(model):
        found = _own(model, file, classes, sides, pixels)
    elif is_published(model) or model.startswith(TIMM):
        given = PRETRAINED if is_published(model) and weights is None and not random_weights else weights
        found = _timm(model, given, classes, sides, seed, pixels)
    else:
        found = _zoo(model, weights, classes, sides, seed, pixels)
    return replace(found, task=fitting_task(task, found.layout), task_is_asked=task is not None)


def _sides(size: int | Size) -> Size:
    both = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    height, width = (whole("the input size", side, MOST_SIDE) for side in both)
    return height, width


def _zoo(
    model: str, weights: Weights, classes: int | None, size: Size | None, seed: int, pixels: Pixels
) -> Source:  # fmt: skip
    family, variant = find_variant(model)
    height, width = size or (variant.input_size, variant.input_size)
    if weights == PRETRAINED:
        module = published(model, classes)
        classes = int(module.num_classes)
    else:
        classes = classes or variant.classes
        module = family.build(variant, classes).eval()
    label = filled(module, weights, variant.name, classes, seed)
    is_bgr = pixels.channel_order == "BGR"
    mean, std, notes = normalisation(model, (model, variant.preprocess), 3, pixels, is_bgr=is_bgr)
    resize = round(variant.preprocess["resize"] * min(height, width) / variant.input_size)
    preprocess = {**variant.preprocess, "mean": mean, "std": std, "resize": resize}
    rewrite = with_equivalents if is_bgr else lambda m, s, _=silent: family.rewrite(m, s)
    return Source(
        model, family.name, Reversed(module) if is_bgr else module, rewrite, classes, (height, width, 3), preprocess,
        variant.bridge_blocks, label, {"output": (1, classes)}, notes,
    )  # fmt: skip


def _timm(
    model: str, weights: Weights, classes: int | None, size: Size | None, seed: int, pixels: Pixels
) -> Source:  # fmt: skip
    name, options = model.removeprefix(TIMM), {} if classes is None else {"num_classes": classes}
    module: Any = published(name, classes) if weights == PRETRAINED else create(name, pretrained=False, **options)
    label = filled(module, weights, name, module.num_classes, seed)
    found = described(model, module, size, label, pixels)
    if weights is None:
        settle(module, found.shape, seed)
    return found


def _given(
    module: nn.Module, weights: Path | None, classes: int | None, size: Size | None, pixels: Pixels
) -> Source:  # fmt: skip
    name = type(module).__name__
    return _with_weights(name, copied(name, module), weights, classes, size, pixels)


def _file(path: Path, classes: int | None, size: Size | None, pixels: Pixels) -> Source:
    importer = importer_of(path)
    opened = importer.open(path, size)
    height, width, channels = opened.shape
    opened.reference.__dict__["preprocess"] = {"input_size": (channels, height, width)}
    found = described(path.name, opened.reference, None, path.name, pixels, maps_last=opened.channels_last)
    _check_classes(found, classes)
    return replace(found, rewrite=opened.rewrite or found.rewrite, tflite=opened.tflite, tools=importer.tools)


def _own(model: str, weights: Path | None, classes: int | None, size: Size | None, pixels: Pixels) -> Source:
    name, module = called(model, classes)
    return _with_weights(name, module, weights, classes, size, pixels)


def _with_weights(
    name: str, module: nn.Module, weights: Path | None, classes: int | None, size: Size | None, pixels: Pixels
) -> Source:  # fmt: skip
    module = plain(name, module)
    found = described(name, module, size, "its own" if weights is None else weights.name, pixels)
    if weights is not None:
        found = replace(found, weights=load_into(module, weights, name, found.classes))
        module.train().eval()  # timm's attention keeps its table of biases from the run that counted the classes
    _check_classes(found, classes)
    return found


def _check_classes(found: Source, classes: int | None) -> None:
    if classes not in (None, found.classes):
        raise UsageError(f"{classes} classes asked for, but {found.name} gives {found.classes} outputs")
