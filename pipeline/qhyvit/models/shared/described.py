"""A model ready to be exported, and how one that somebody else built is described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from qhyvit.models import all_families
from qhyvit.models.shared.input_facts import Pixels, check_inputs, input_facts
from qhyvit.models.shared.modules import Reversed
from qhyvit.models.shared.outputs import output_shapes
from qhyvit.models.shared.shape import Shape
from qhyvit.models.shared.submodules import with_equivalents
from qhyvit.tasks import task as find_task
from qhyvit.tasks.shared.layout import Layout
from qhyvit.tasks.shared.task import Task

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
    notes: tuple[str, ...] = ()
    maps_last: bool = False
    tflite: Callable[[bool, bool], bytes] | None = None
    tools: tuple[str, ...] = ()
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

    @property
    def layout(self) -> Layout:
        """Names and shapes of the outputs, maps with their channels last."""
        shapes = (s if self.maps_last or len(s) != 4 else (s[0], *s[2:], s[1]) for s in self.outputs.values())
        return Layout(tuple(self.outputs), tuple(shape[1:] for shape in shapes))


def described(
    name: str, module: nn.Module, size: Size | None, weights: str, pixels: Pixels, *, maps_last: bool = False
) -> Source:  # fmt: skip
    """A module that somebody else built, with what it says of itself (see :func:`input_facts`)."""
    check_inputs(name, module)
    facts = input_facts(name, module, size, pixels)
    outputs = output_shapes(name, module, facts.shape)
    label = next((f.name for f in all_families().values() if f.occurs_in(module)), GENERIC)
    first = next(iter(outputs.values()))
    classes = first[-1 if maps_last else 1] if len(outputs) == 1 and len(first) in (2, 4) else 0
    reference = Reversed(module) if facts.is_bgr else module
    return Source(name, label, reference, with_equivalents, classes, facts.shape, facts.preprocess, None, weights,
                  outputs, facts.notes, maps_last)  # fmt: skip
