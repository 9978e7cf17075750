"""A user's own module: made by a factory in a file (``FILE.py:FUNCTION``), or given as it stands in memory."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import inspect
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qhyvit.errors import ExportError, InputError, UsageError
from qhyvit.files import OWN
from qhyvit.models.shared.reason import first_line
from qhyvit.models.shared.timm_models import import_timm


def is_own(model: str) -> bool:
    """Whether ``model`` names a factory in a file: what it gives is known only when it ran."""
    return OWN in model


def called(model: str, classes: int | None) -> tuple[str, nn.Module]:
    """Run a user's factory; its name, and the module that it gives.

    Args:
        model: ``FILE.py:FUNCTION``.
        classes: passed where the factory has a parameter ``num_classes``.

    Raises:
        InputError: there is no such file.
        UsageError: the file has no such function.
        ExportError: the function fails, or gives no module.
    """
    place, _, function = model.partition(OWN)
    path = Path(f"{place}.py")
    if not path.is_file():
        raise InputError(f"--model-py: file {path} does not exist")
    spec = importlib.util.spec_from_file_location(f"qhyvit_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    import_timm()  # beside a CPU torch, timm only imports this way
    try:
        with _as_a_program(path):
            spec.loader.exec_module(loaded)
            factory = getattr(loaded, function, None)
            if not callable(factory):
                raise UsageError(f"--model-py: {path} has no function {function!r}")
            made = factory(num_classes=classes) if classes is not None and _takes_classes(factory) else factory()
    except (UsageError, ExportError):
        raise
    except Exception as error:  # a user's code may raise anything
        raise ExportError(f"{function} in {path} failed: {type(error).__name__}: {error}".rstrip(": ")) from error
    if not isinstance(made, nn.Module):
        raise ExportError(f"{function} in {path} gives a {type(made).__name__}, not a torch.nn.Module")
    return function, made


@contextlib.contextmanager
def _as_a_program(path: Path) -> Iterator[None]:
    """Run a user's code with its folder on the path and without qhyvit's own arguments; what it prints goes to stderr.

    Raises:
        ExportError: it ends the program, as argparse does; with the last line that it said.
    """
    said, arguments = io.StringIO(), sys.argv
    sys.path.insert(0, str(path.parent.resolve()))  # for what the file imports from beside it
    sys.argv = [str(path)]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield
    except SystemExit as error:
        lines = said.getvalue().strip().splitlines()
        last = f": {lines[-1].strip()}" if lines else ""
        said = io.StringIO()
        raise ExportError(
            f"{path} ended the program (exit code {error.code}){last}; a factory returns its module: keep argparse and "
            'sys.exit below if __name__ == "__main__"'
        ) from error
    finally:
        sys.path.pop(0)
        sys.argv = arguments
        sys.stderr.write(said.getvalue())


def _takes_classes(factory: Callable[..., Any]) -> bool:
    return "num_classes" in inspect.signature(factory).parameters


def copied(name: str, module: nn.Module) -> nn.Module:
    """A copy, so that the user's stays as it is.

    Raises:
        ExportError: it cannot be copied.
    """
    import_timm()  # before the equivalents need it
    try:
        return copy.deepcopy(module)
    except Exception as error:  # of what a user's module may hold
        raise ExportError(f"{name} cannot be copied: {first_line(error)}") from error


def plain(name: str, module: nn.Module) -> nn.Module:
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
