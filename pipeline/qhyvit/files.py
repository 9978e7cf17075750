"""Writing so that nothing half-written is ever found under a final name."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.errors import InputError, OutputError


@contextlib.contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """Turn what the system says about a write into one line.

    Raises:
        OutputError: not writable, disk full, ...
    """
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def write_bytes(target: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename.

    Raises:
        OutputError: it could not be written; nothing is left behind.
    """
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o644)
            os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def write_text(target: Path, text: str) -> None:
    """Write a text file, see :func:`write_bytes`."""
    write_bytes(target, text.encode())


@contextlib.contextmanager
def new_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` when the block ends well; else nothing is left.

    Raises:
        OutputError: ``target`` exists and ``force`` is not given, or it cannot be written.
    """
    check_free(target, force=force)
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield folder
            folder.chmod(0o755)
            if target.exists():
                shutil.rmtree(target)
            folder.rename(target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def check_free(target: Path, *, force: bool) -> None:
    """Say before the work that an output is in the way or cannot be written.

    Raises:
        OutputError: it exists without ``force``, is no folder of ours, or its place is not writable.
    """
    if target.exists() and not force:
        raise OutputError(f"{target} exists; use --force to replace it, or another --out")
    if target.exists() and not (target / "manifest.json").is_file() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target} exists and is no bundle: it is not replaced; use another --out")
    place = target.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise OutputError(f"cannot write {target}: {place} is not a writable folder")


def read_bytes(path: Path, what: str) -> bytes:
    """Read a file.

    Raises:
        InputError: missing or unreadable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def pack_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Named arrays as the bytes of an ``.npz``; names may hold any character."""
    stream = io.BytesIO()
    named: dict[str, Any] = {str(i): a for i, a in enumerate(arrays.values())}
    np.savez(stream, names=np.array(list(arrays)), **named)
    return stream.getvalue()


def unpack_arrays(data: bytes, what: str) -> dict[str, NDArray[Any]]:
    """What :func:`pack_arrays` packed; pickles are refused.

    Raises:
        InputError: damaged, or not such a file.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            return {str(name): found[str(i)] for i, name in enumerate(found["names"])}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{what} is damaged: {error}; calibrate again") from error


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file while the block runs; the system frees it when the process ends, however it ends.

    Raises:
        OutputError: another process holds it and ``wait`` is False, or it cannot be written.
    """
    import fcntl

    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise OutputError(f"another process is at work in {path.parent}; wait for it, or end it") from error
        yield
