"""From a torch module to the float ``.tflite`` of litert-torch, and from that to the one that ships."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from qhyvit.errors import ExportError
from qhyvit.graph.ir import Graph
from qhyvit.models.shared.masks import finite
from qhyvit.models.shared.reason import reason
from qhyvit.models.shared.shape import Shape
from qhyvit.passes import shortened
from qhyvit.tflite.read import read


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the converter's progress lines, written by Python and by C++, off the terminal."""
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        saved = os.dup(2), os.dup(1)
        try:
            os.dup2(sink.fileno(), 2)
            os.dup2(sink.fileno(), 1)
            yield
        finally:
            os.dup2(saved[0], 2)
            os.dup2(saved[1], 1)
            for fd in saved:
                os.close(fd)


def convert(module: nn.Module, shape: Shape) -> bytes:
    """Float ``.tflite`` of a module that takes [1, H, W, C].

    Raises:
        ExportError: the converter refused the module.
    """
    sample = (torch.rand(1, *shape),)
    with tempfile.TemporaryDirectory() as folder, quiet():
        import litert_torch

        try:
            edge = litert_torch.convert(module, sample)
        except Exception as error:  # the converter raises whatever its stages raise
            raise ExportError(f"litert-torch could not convert the model: {reason(error)}") from error
        path = Path(folder) / "float.tflite"
        edge.export(str(path))
        return path.read_bytes()


def shortened_graph(data: bytes, modules: Mapping[str, str]) -> Graph:
    """The graph of a converted file, with masks made finite, behind the passes of the export.

    Args:
        modules: path of the module that each tensor came from, by the tensor's name.

    Raises:
        GraphError: ops that we do not support.
    """
    return shortened(finite(read(data, modules)))
