"""Lets torchvision be imported beside a CPU build of torch, by whoever imports it.

torchvision's wheel on the package index is built for CUDA: beside a CPU torch its extension does not load, and its
import dies on two operators that it expects there; timm imports it. Their schemas are enough. They are declared when
torchvision is about to be imported, so that ``import qhyvit`` stays cheap.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[Any] = []  # a Library takes its operators with it when it is collected


class _Finder:
    """Finds nothing: it sees that torchvision is looked for, once."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        """Declare the operators before torchvision is loaded."""
        if name == "torchvision":
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _Finder]
            declare()


def install() -> None:
    """Watch for torchvision's import."""
    if "torchvision" not in sys.modules and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def declare() -> None:
    """Declare the operators, unless torchvision's own extension loads."""
    try:
        import torch
    except ImportError:
        return
    if not _declared and not hasattr(torch.ops.torchvision, OPERATORS[0]) and not loads(torch):
        made: Callable[..., Any] = torch.library.Library  # torch leaves it untyped
        library = made("torchvision", "FRAGMENT")
        for name in OPERATORS:
            library.define(name + SCHEMA)
        _declared.append(library)


def loads(torch: Any) -> bool:
    """Whether the extension of the installed torchvision works with this torch."""
    found = importlib.machinery.PathFinder.find_spec("torchvision")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for extension in Path(folder).glob("_C*.so"):
            try:
                torch.ops.load_library(str(extension))
            except (OSError, RuntimeError):
                return False
            return True
    return False
