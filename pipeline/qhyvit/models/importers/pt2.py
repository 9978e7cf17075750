"""A ``.pt2`` that ``torch.export.save`` wrote: the program is its own float runtime, and becomes a module again."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.export.graph_signature import InputKind, TensorArgument

from qhyvit import files
from qhyvit.errors import ExportError, InputError
from qhyvit.models.shared.importer import Imported, Importer, file_dimensions, image_shape, only_input
from qhyvit.models.shared.modules import Called, ChannelsLast, FromChannelsFirst
from qhyvit.models.shared.reason import first_line
from qhyvit.models.shared.shape import Shape
from qhyvit.progress import Log

OBJECTS = ("custom_obj_", "opaque_obj_")  # in names of an archive's members: torch unpickles these whatever they are


def _open(path: Path, size: tuple[int, int] | None) -> Imported:
    """The program, with a batch of 1 and the sides that were asked for where it takes any."""
    program, name = _load(path), path.name
    entry = only_input(name, _inputs(program))
    value = next(node.meta["val"] for node in program.graph.nodes if node.name == entry)
    if value.dtype != torch.float32:
        raise ExportError(f"{name}: input {entry!r} is {value.dtype}: an image is float32; export the model in float32")
    sizes = [int(d) if isinstance(d, int) else None for d in value.shape]
    shape, last = image_shape(name, entry, [None, *sizes[1:]], size, last=False)
    dims = file_dimensions(shape, channels_last=last)
    if sizes[0] not in (None, 1):
        raise ExportError(f"{name} takes {sizes[0]} images at once; export it for one, or for any number")
    net = _module(name, program, torch.zeros(dims), fixed=None not in sizes)
    return Imported(FromChannelsFirst(net).eval() if last else net, shape, last, _rewritten)


def _rewritten(reference: nn.Module, shape: Shape, log: Log) -> nn.Module:
    """For [1, H, W, C]; no copy, which a program's notes on its tensors do not allow."""
    return ChannelsLast(reference).eval()


def _load(path: Path) -> Any:
    """The program.

    Raises:
        InputError: missing, nothing that this torch can read, or it holds objects that run code when they are read.
    """
    files.read_bytes(path, "model file")
    try:
        with zipfile.ZipFile(path) as archive:
            objects = [n for n in archive.namelist() if any(kind in n for kind in OBJECTS)]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is no program of torch.export: save it with torch.export.save") from error
    if objects:
        raise InputError(f"{path} holds objects, not tensors alone ({objects[0]}): they are not unpickled")
    try:
        with _silenced(), mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}):
            return torch.export.load(str(path))
    except Exception as error:  # of foreign archives
        version, said = torch.__version__, first_line(error)
        raise InputError(f"{path} holds no program of torch.export that torch {version} reads: {said}") from error


def _inputs(program: Any) -> list[str]:
    """Names of the tensors that the program is called with."""
    specs = program.graph_signature.input_specs
    return [s.arg.name for s in specs if s.kind == InputKind.USER_INPUT and isinstance(s.arg, TensorArgument)]


def _module(name: str, program: Any, image: torch.Tensor, *, fixed: bool) -> nn.Module:
    """A module that takes the image alone.

    Raises:
        ExportError: the program does not run on it.
    """
    args, named = program.example_inputs or ((image,), {})
    alone = len(args) == 1 and isinstance(args[0], torch.Tensor) and not named
    try:
        with _silenced():
            if not fixed:
                called = program.module() if alone else Called(program.module(), args, named)
                program, alone = torch.export.export(called, (image,), strict=False), True
            net: nn.Module = torch.export.unflatten(program)
        return net if alone else Called(net, args, named)
    except Exception as error:  # guards of the program, ops of the module
        raise ExportError(f"{name} does not run on {list(image.shape)}: {first_line(error)}") from error


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """torch logs whole tracebacks of what it tries."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


IMPORTER = Importer("pt2", "a program that torch.export.save wrote", _open)
