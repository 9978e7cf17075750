"""A user's own factory of modules, ``FILE.py:FUNCTION``."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from qhyvit.errors import ExportError, InputError, UsageError
from qhyvit.models.shared.timm_models import import_timm


def call(path: Path, function: str, classes: int | None) -> nn.Module:
    """Run a user's factory; ``classes`` is passed where it has a parameter ``num_classes``.

    Raises:
        InputError, UsageError: no such file or function.
        ExportError: it failed, or gives something else than a module.
    """
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
    return made


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
