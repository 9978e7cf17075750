"""What it takes to build from a model that lies in a file already, made by whatever exporter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from qhyvit.errors import ExportError, UsageError
from qhyvit.models.shared.shape import Shape, by_sides
from qhyvit.progress import Log
from qhyvit_device.arrays import MOST_CHANNELS

Dimensions = Sequence[int | None]  # None: any


@dataclass(frozen=True)
class Imported:
    """A model file that is open.

    Args:
        reference: the file in its own float runtime, as a module in eval mode: [1, C, H, W] -> one tensor [1, ...], or
            a dictionary of several, with their axes as the file has them.
        shape: height, width and channels of its input.
        channels_last: whether the file has the channels of its input last, and so those of maps.
        rewrite: (a module around ``reference``, ``shape``, log) -> a module that computes the same on [1, H, W, C], for
            litert-torch.
        tflite: in the place of ``rewrite``: (whether the file takes blue first, whether maps [1, C, H, W] are to have
            their channels last) -> a float ``.tflite`` that takes [1, H, W, C], red first.
    """

    reference: nn.Module
    shape: Shape
    channels_last: bool
    rewrite: Callable[[nn.Module, Shape, Log], nn.Module] | None = None
    tflite: Callable[[bool, bool], bytes] | None = None


@dataclass(frozen=True)
class Importer:
    """A kind of file.

    Args:
        name: the ending of such files, without the dot.
        summary: one line.
        open: (path, height and width that the user asked for) -> the model; ExportError, InputError or UsageError in
            one line.
        files: all files that a model consists of; a build that is resumed looks whether they are the same.
        tools: distributions that the result depends on, besides those of every build.
        needs: modules that are not installed with the pipeline, but with the extra of this name.
    """

    name: str
    summary: str
    open: Callable[[Path, tuple[int, int] | None], Imported]
    files: Callable[[Path], list[Path]] = lambda path: [path]
    tools: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def check_installed(self) -> None:
        """Say before the work what is not installed.

        Raises:
            UsageError: with the extra that brings it.
        """
        missing = [module for module in self.needs if find_spec(module) is None]
        if missing:
            raise UsageError(f".{self.name} files need {missing[0]}: pip install 'qhyvit[{self.name}]'")


def only_input(name: str, inputs: Sequence[str]) -> str:
    """The one input of a file.

    Raises:
        ExportError: there are several, or none; with their names.
    """
    if len(inputs) != 1:
        listed = f" ({', '.join(inputs[:8])})" if inputs else ""
        raise ExportError(f"{name} takes {len(inputs)} inputs{listed}; export a model that takes the image alone")
    return inputs[0]


def image_shape(
    name: str, entry: str, dims: Dimensions, size: tuple[int, int] | None, *, last: bool
) -> tuple[Shape, bool]:  # fmt: skip
    """Height, width and channels of the input ``entry``, and whether its channels lie last.

    Args:
        dims: of the file; a batch or sides that may be any are set.
        size: height and width that the user asked for.
        last: where the channels lie in a file in which both places fit.

    Raises:
        ExportError: it is no image.
        UsageError: the file has another size than was asked for, or any and none was.
    """
    shown = f"input {entry!r} of {name} is [{', '.join('any' if d is None else str(d) for d in dims)}]"
    if len(dims) != 4:
        raise ExportError(f"{shown}; an image is [1, H, W, C] or [1, C, H, W]: export a model that takes one")
    second, fourth = (dims[axis] or MOST_CHANNELS + 1 for axis in (1, 3))
    channels_last = last if second == fourth else fourth < second
    channels = fourth if channels_last else second
    if channels > MOST_CHANNELS:
        raise ExportError(f"{shown}; an image has 1 to {MOST_CHANNELS} channels, first or last: export a model of one")
    sides = dims[1:3] if channels_last else dims[2:4]
    if size is None and None in sides:
        raise UsageError(f"{shown}: give --input-size, pixels")
    if size is not None and any(have not in (None, asked) for have, asked in zip(sides, size, strict=True)):
        raise UsageError(f"{shown}; --input-size says {by_sides(size)}: leave it out, or export at that size")
    height, width = (asked if have is None else have for have, asked in zip(sides, size or sides, strict=True))
    assert height is not None
    assert width is not None
    return (height, width, channels), channels_last


def file_dimensions(shape: Shape, *, channels_last: bool) -> tuple[int, int, int, int]:
    """The input's shape as a file has it, for one image."""
    height, width, channels = shape
    return (1, height, width, channels) if channels_last else (1, channels, height, width)
