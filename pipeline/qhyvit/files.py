"""Writing so that nothing half-written is ever found under a final name."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import re
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from qhyvit.errors import InputError, OutputError, QhyvitError, UsageError
from qhyvit_device import manifest as manifests
from qhyvit_device import signature
from qhyvit_device.files import open_regular

OWN = ".py:"  # in FILE.py:FUNCTION, a factory of models
LOCAL_DIR = "local-dir:"  # before a folder with a network's config.json and weights, timm's own way to write it
MODEL_FILES = (".tflite", ".onnx", ".pt2")  # endings of models that lie in files (``qhyvit.models.importers``)
TEMPORARY = re.compile(r"[0-9a-f]{8}|old\.[0-9a-z_]{8}")  # behind the name of a target; old: the folder moved aside


def is_model_file(model: str) -> bool:
    """Whether ``model`` names a file with a whole model, not a name that is known."""
    return model.endswith(MODEL_FILES)


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
    """Write a file under a temporary name, then rename; what killed processes left of it is removed.

    Raises:
        OutputError: it could not be written; nothing is left behind.
    """
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        name = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        with _flocked(target.parent, wait=True):  # between making a file and locking it nobody else looks
            _remove_left(target)
            handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # less what the user's umask forbids
            _flock(handle, wait=True)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(name, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


def write_text(target: Path, text: str) -> None:
    """Write a text file, see :func:`write_bytes`; names of files that are no text become escapes."""
    write_bytes(target, text.encode(errors="backslashreplace"))


def only(folder: Path, names: Collection[str]) -> bool:
    """Whether a folder holds nothing but ``names``, besides what file managers leave everywhere."""
    return {p.name for p in folder.iterdir()} <= {*names, ".DS_Store", "Thumbs.db", "desktop.ini"}


def holds_a_bundle(folder: Path) -> bool:
    """Whether a folder holds a bundle, and nothing else."""
    try:
        found = manifests.load(folder / manifests.FILE_NAME)
    except QhyvitError:
        return False
    return only(folder, (manifests.FILE_NAME, signature.FILE_NAME, *found.checksums))


@contextlib.contextmanager
def new_folder(target: Path, *, force: bool = False, ours: Callable[[Path], bool] = holds_a_bundle) -> Iterator[Path]:
    """A temporary folder that becomes ``target`` when the block ends well; else nothing is left.

    Raises:
        OutputError: see :func:`check_free`; or it cannot be written, and then ``target`` is what it was.
    """
    check_free(target, force=force, ours=ours)
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _held_folder(target) as folder:
            try:
                yield folder
                with _flocked(target.parent, wait=True):
                    check_free(target, force=force, ours=ours)  # another process may have been faster
                    _put(folder, target)
                    _remove_left(target)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise


@contextlib.contextmanager
def _held_folder(target: Path) -> Iterator[Path]:
    """A new temporary folder beside ``target``, locked while it is made; those of killed processes are removed."""
    with contextlib.ExitStack() as held:
        with _flocked(target.parent, wait=True):  # between making a folder and locking it nobody else looks
            _remove_left(target)
            folder = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
            folder.mkdir()
            held.enter_context(_flocked(folder, wait=True))
        yield folder


def _remove_left(target: Path) -> None:
    """Remove what killed processes left beside ``target``, which is locked by those that are at work."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if not TEMPORARY.fullmatch(path.name.removeprefix(f".{target.name}.")):
            continue
        # an old one that was moved aside is kept until a new one is in its place
        if not target.exists() and path.is_dir() and any(path.glob(glob.escape(target.name))):
            continue
        with contextlib.suppress(OSError), _flocked(path, wait=False):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextlib.contextmanager
def _flocked(path: Path, *, wait: bool) -> Iterator[None]:
    """Lock a file or a folder itself, where its file system can; BlockingIOError where another process has it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        _flock(handle, wait=wait)
        yield
    finally:
        os.close(handle)


def _flock(handle: int, *, wait: bool) -> None:
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            if not wait:
                raise


def _put(folder: Path, target: Path) -> None:
    """Rename ``folder`` to ``target``; what was there is moved aside first, and comes back where that fails."""
    if not target.exists():
        folder.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent)) / target.name
    try:
        target.rename(aside)
        folder.rename(target)
    except BaseException:
        if aside.exists():
            aside.rename(target)
        raise
    finally:
        if target.exists():  # else the old one stays where it is, with its own name
            shutil.rmtree(aside.parent, ignore_errors=True)


def check_free(target: Path, *, force: bool, ours: Callable[[Path], bool] = holds_a_bundle) -> None:
    """Say before the work that an output folder is in the way or cannot be written.

    Args:
        force: a folder of ours, or an empty one, may be replaced.
        ours: whether a folder is of ours, and holds nothing else.

    Raises:
        OutputError: it exists without ``force``, is no folder of ours, or its place is not writable.
    """
    if target.is_symlink():
        raise OutputError(f"{target} is a link: it is not replaced; use another --out")
    if target.exists() and not force:
        raise OutputError(f"{target} exists; use --force to replace it, or another --out")
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or ours(target))):
        raise OutputError(f"{target} is none of ours, or holds more: it is not replaced; use another --out")
    _check_place(target)


def check_file(target: Path, *, force: bool = True) -> None:
    """Say before the work that an output file is in the way or cannot be written.

    Raises:
        OutputError: it exists without ``force``, is no regular file, or its place is not writable.
    """
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise OutputError(f"{target} is a link, a folder or a device: it is not replaced; name a file")
    if target.exists() and not force:
        raise OutputError(f"{target} exists; use --force to replace it, or another --out")
    _check_place(target)


def _check_place(target: Path) -> None:
    place = target.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise OutputError(f"cannot write {target}: {place} is not a writable folder")


def beside(path: Path, ending: str) -> Path:
    """What lies beside a file or folder under its name, whatever stands for that ("."), with ``ending`` behind it.

    Raises:
        UsageError: the root folder.
    """
    whole = path if path.name not in ("", "..") else path.resolve()
    if not whole.name:
        raise UsageError(f"{path} is the root folder; give another one")
    return whole.with_name(whole.name + ending)


def read_bytes(path: Path, what: str, *, pipe: bool = False) -> bytes:
    """Read a file.

    Args:
        pipe: take a FIFO as well, and wait for who writes it.

    Raises:
        InputError: missing, unreadable or no regular file.
    """
    try:
        if pipe:
            return path.read_bytes()
        with open_regular(path, links=True) as stream:
            return stream.read()
    except OSError as error:
        raise InputError(f"cannot read {what} {path}: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"cannot read {what} {error}") from error


def read_text(path: Path, what: str) -> str:
    """Read a text in UTF-8, without a byte order mark.

    Raises:
        InputError: missing, unreadable, or another encoding; with the line.
    """
    content = read_bytes(path, what)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{what} {path}, line {line}: not UTF-8; save the file as UTF-8") from error


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
    except (ValueError, KeyError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{what} is damaged: {error}; calibrate again") from error


@contextlib.contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file while the block runs; the system frees it when the process ends, however it ends.

    A thread that holds it already may take it again.

    Raises:
        OutputError: another process or thread holds it and ``wait`` is False, or it cannot be written.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(path.resolve(), is_singleton=True)
        try:
            held.acquire(timeout=-1 if wait else 0)
        except filelock.Timeout as error:
            raise OutputError(f"another process is at work in {path.parent}; wait for it, or end it") from error
    try:
        yield
    finally:
        held.release()
