"""Where a model comes from: the zoo, timm (``timm/NAME``), a user's own factory (``FILE.py:FUNCTION``), or a file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qhyvit.errors import ExportError, InputError, UsageError
from qhyvit.files import OWN, is_model_file
from qhyvit.models import all_families, find_variant
from qhyvit.models.importers import importer_of
from qhyvit.models.shared.factory import call
from qhyvit.models.shared.input_facts import Pixels, check_inputs, input_facts, normalisation, whole
from qhyvit.models.shared.modules import Reversed
from qhyvit.models.shared.outputs import output_shapes
from qhyvit.models.shared.reason import first_line
from qhyvit.models.shared.shape import Shape
from qhyvit.models.shared.submodules import with_equivalents
from qhyvit.models.shared.timm_models import import_timm
from qhyvit.models.shared.weights import load_into, randomize, settle
from qhyvit.progress import silent
from qhyvit.tasks import fitting_task
from qhyvit.tasks import task as find_task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Task
from qhyvit_device.arrays import MOST_SIDE

TIMM = "timm/"
LARGEST_CLASSES = 1_000_000
GENERIC = "generic"  # family of a model whose blocks no family knows
Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Source:
    """A model ready to be exported.

    Args:
        reference: torch module in eval mode, [1, C, H, W] -> outputs [1, ...], with its weights; red comes first.
        rewrite: see :func:`qhyvit.models.shared.submodules.with_equivalents`.
        bridge_blocks: how many the paper counts, None where it does not.
        weights: what they are, in a word or a file's name.
        shape: height, width and channels of the input.
        preprocess: see :class:`qhyvit.models.shared.family.Variant`; ``resize`` for ``shape``.
        classes: values of a single output [1, classes], channels of a map; else 0.
        outputs: shape of each output of the module, its batch of 1 included, by name.
        maps_last: whether the module gives maps as [1, H, W, C] already.
        tflite: see :class:`qhyvit.models.shared.importer.Imported`; None: ``rewrite`` leads to the file.
        tools: distributions that the file depends on, besides those of every export.
        notes: what was assumed or mended about the input, a line each.
        task: what the outputs mean; ``task_is_asked``: by the user, not found from their shapes.
    """

    name: str
    family: str
    reference: nn.Module
    rewrite: Callable[..., nn.Module]
    classes: int
    shape: Shape
    preprocess: Mapping[str, Any]
    bridge_blocks: int | None
    weights: str
    outputs: Mapping[str, tuple[int, ...]]
    maps_last: bool = False
    tflite: Callable[[bool, bool], bytes] | None = None
    tools: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    task: Task = field(default_factory=lambda: find_task("classify"))
    task_is_asked: bool = False

    @property
    def is_formed(self) -> bool:
        """Whether the outputs need :class:`qhyvit.models.shared.outputs.GivesOutputs`."""
        maps = self.turns_maps and any(len(shape) == 4 for shape in self.outputs.values())
        return maps or list(self.outputs) != ["output"]

    @property
    def turns_maps(self) -> bool:
        """Whether maps [1, C, H, W] become [1, H, W, C]."""
        return self.task.channels_last and not self.maps_last


def is_own(model: str) -> bool:
    """Whether ``model`` names a factory in a file: what it gives is known only when it ran."""
    return OWN in model


def open_source(
    model: str | nn.Module, weights: Path | None = None, classes: int | None = None, size: int | Size | None = None,
    seed: int = 0, *, random_weights: bool = False, pixels: Pixels | None = None, task: str | None = None,
) -> Source:  # fmt: skip
    """Build the model and give it its weights; without a file a factory's or a module's are its own.

    Args:
        model: a name of the zoo, ``timm/NAME``, ``FILE.py:FUNCTION``, a file (:data:`qhyvit.files.MODEL_FILES`), or a
            module (it is left as it is).
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
    if isinstance(model, nn.Module):
        found = _given(model, weights, classes, sides, pixels)
    elif is_model_file(model):
        found = _file(Path(model), classes, sides, pixels)
    elif is_own(model):
        found = _own(model, weights, classes, sides, pixels)
    else:
        found = (_timm if model.startswith(TIMM) else _zoo)(model, weights, classes, sides, seed, pixels)
    shapes = (s if found.maps_last else _last(s) for s in found.outputs.values())
    layout = Layout(tuple(found.outputs), tuple(shape[1:] for shape in shapes))
    return replace(found, task=fitting_task(task, layout), task_is_asked=task is not None)


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a map with its channels last."""
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def _sides(size: int | Size) -> Size:
    both = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    height, width = (whole("the input size", side, MOST_SIDE) for side in both)
    return height, width


def check_weights(model: str | nn.Module, weights: Path | None, *, random_weights: bool) -> None:
    """Refuse a name without weights unless random ones are asked for: nobody means to ship these.

    Raises:
        UsageError: no such name; no weights; random ones beside others; any for a file, which has its own.
        InputError: there is no such file.
    """
    if isinstance(model, str) and is_model_file(model):
        _check_file(Path(model), weights, random_weights=random_weights)
        return
    if isinstance(model, nn.Module) or is_own(model):
        if random_weights:
            raise UsageError("--random-weights is for names; a factory's module keeps its own weights")
        return
    if model.startswith(TIMM):
        _known_to_timm(model.removeprefix(TIMM))
    else:
        find_variant(model)
    if weights is not None and random_weights:
        raise UsageError("give --weights or --random-weights, not both")
    if weights is None and not random_weights:
        raise UsageError(f"{model} needs --weights FILE; for a trial with random ones give --random-weights")


def _check_file(path: Path, weights: Path | None, *, random_weights: bool) -> None:
    if weights is not None or random_weights:
        raise UsageError(f"{path.name} has its weights inside: leave out --weights and --random-weights")
    if not path.is_file():
        raise InputError(f"model file {path} does not exist")
    importer_of(path).check_installed()


def _known_to_timm(name: str) -> Any:
    timm = import_timm()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise UsageError(f"timm has no model {name!r}; near: {near}")
    return timm


def _filled(module: nn.Module, weights: Path | None, model: str, classes: int, seed: int) -> str:
    if weights is None:
        randomize(module, seed)
        return "random"
    return load_into(module, weights, model, classes)


def _zoo(
    model: str, weights: Path | None, classes: int | None, size: Size | None, seed: int, pixels: Pixels
) -> Source:  # fmt: skip
    family, variant = find_variant(model)
    classes, (height, width) = classes or variant.classes, size or (variant.input_size, variant.input_size)
    module = family.build(variant, classes).eval()
    label = _filled(module, weights, variant.name, classes, seed)
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
    model: str, weights: Path | None, classes: int | None, size: Size | None, seed: int, pixels: Pixels
) -> Source:  # fmt: skip
    name = model.removeprefix(TIMM)
    timm = _known_to_timm(name)
    options = {} if classes is None else {"num_classes": classes}
    module = timm.create_model(name, pretrained=False, **options).eval()
    label = _filled(module, weights, model, module.num_classes, seed)
    found = _described(model, module, size, label, pixels)
    if weights is None:
        settle(module, found.shape, seed)
    return found


def _given(
    module: nn.Module, weights: Path | None, classes: int | None, size: Size | None, pixels: Pixels
) -> Source:  # fmt: skip
    import_timm()  # before the equivalents need it
    name = type(module).__name__
    try:
        own = copy.deepcopy(module)
    except Exception as error:  # of what a user's module may hold
        raise ExportError(f"{name} cannot be copied: {first_line(error)}") from error
    return _with_weights(name, own, weights, classes, size, pixels)


def _file(path: Path, classes: int | None, size: Size | None, pixels: Pixels) -> Source:
    importer = importer_of(path)
    found = importer.open(path, size)
    height, width, channels = found.shape
    found.reference.__dict__["preprocess"] = {"input_size": (channels, height, width)}
    source = _described(path.name, found.reference, None, path.name, pixels)
    if found.channels_last:
        source = replace(source, maps_last=True, classes=_classes(source.outputs, -1))
    _check_classes(source, classes)
    return replace(source, rewrite=found.rewrite or source.rewrite, tflite=found.tflite, tools=importer.tools)


def _own(model: str, weights: Path | None, classes: int | None, size: Size | None, pixels: Pixels) -> Source:
    place, _, function = model.partition(OWN)
    return _with_weights(function, call(Path(f"{place}.py"), function, classes), weights, classes, size, pixels)


def _with_weights(
    name: str, module: nn.Module, weights: Path | None, classes: int | None, size: Size | None, pixels: Pixels
) -> Source:  # fmt: skip
    module = _plain(name, module)
    found = _described(name, module, size, "its own" if weights is None else weights.name, pixels)
    if weights is not None:
        found = replace(found, weights=load_into(module, weights, name, found.classes))
        module.train().eval()  # timm's attention keeps its table of biases from the run that counted the classes
    _check_classes(found, classes)
    return found


def _check_classes(found: Source, classes: int | None) -> None:
    if classes not in (None, found.classes):
        raise UsageError(f"{classes} classes asked for, but {found.name} gives {found.classes} outputs")


def _classes(outputs: Mapping[str, tuple[int, ...]], axis: int) -> int:
    """Values of a single output [1, classes], channels of a map, which lie on ``axis``; else 0."""
    first = next(iter(outputs.values()))
    return first[axis] if len(outputs) == 1 and len(first) in (2, 4) else 0


def _described(name: str, module: nn.Module, size: Size | None, weights: str, pixels: Pixels) -> Source:
    """A module that somebody else built, with what it says of itself (see :func:`input_facts`)."""
    check_inputs(name, module)
    facts = input_facts(name, module, size, pixels)
    outputs = output_shapes(name, module, facts.shape)
    label = next((f.name for f in all_families().values() if f.occurs_in(module)), GENERIC)
    reference = Reversed(module) if facts.is_bgr else module
    return Source(name, label, reference, with_equivalents, _classes(outputs, 1), facts.shape, facts.preprocess, None, weights,
                  outputs, facts.notes)  # fmt: skip


def _plain(name: str, module: nn.Module) -> nn.Module:
    """The module inside wrappers of training, in float32, on the CPU, in eval mode.

    Raises:
        ExportError: its parameters have no values, or it has no Python code.
    """
    outer = module
    while isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        module = module.module
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    if "preprocess" in vars(outer):
        module.__dict__["preprocess"] = vars(outer)["preprocess"]
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError(f"{name} is TorchScript, which cannot be exported; give the module that it was made from")
    for key, value in [*module.named_parameters(), *module.named_buffers()]:
        if nn.parameter.is_lazy(value) or value.is_meta:
            raise ExportError(f"{name}: {key} has no values yet (a lazy layer, or device meta); load weights first")
    return module.float().cpu().eval()
