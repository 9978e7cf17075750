"""A model's first start in a process of its own: what ends the interpreter there is one line here."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from qhyvit_device import manifest as manifests
from qhyvit_device.errors import InputError, said
from qhyvit_device.interpreter import TfliteFile
from qhyvit_device.runner import Model

SECONDS = 120
REFUSED = 3  # exit code: the line is on stdout
CHILD = "from qhyvit_device.trial import child; raise SystemExit(child())"


def child() -> int:
    """In the process: start the model that stdin holds and run it once. Arguments: its name, threads."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        file = TfliteFile(sys.stdin.buffer.read(), sys.argv[1], int(sys.argv[2]))
        file.invoke(np.zeros(tuple(file.input["shape"]), file.input["dtype"]))
    except Exception as error:
        sys.stdout.buffer.write(said(error).encode(errors="replace"))
        return REFUSED
    return 0


def start_in_child(data: bytes, name: str, threads: int = 1) -> None:
    """Start a model in a process of its own, and run it once on zeros.

    Raises:
        InputError: it is refused there, ends the process, or takes more than ``SECONDS``.
    """
    # a name goes through the arguments as the system has it; of the model these very bytes are tried
    command = [sys.executable, "-c", CHILD, name.replace("\0", "?"), str(threads)]
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{name}: the model did not run once in {SECONDS} s") from error
    if done.returncode == REFUSED:
        raise InputError(done.stdout.decode(errors="replace"))
    if done.returncode:
        raise InputError(f"{name}: the model ends the interpreter ({_how(done.returncode)}); it is not used")


def load(bundle: str | Path, threads: int = 1) -> Model:
    """Open a bundle whose model is started in a process of its own first.

    Raises:
        InputError, ManifestError: see :meth:`qhyvit_device.runner.Model.load` and :func:`start_in_child`.
    """
    read = manifests.read_bundle(Path(bundle))
    name = read.manifest.model_file
    start_in_child(read.files[name], str(read.folder / name), threads)
    return Model.of(read, threads)


def _how(code: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"exit code {code}"
