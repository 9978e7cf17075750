"""Files that others wrote, read once, as far as a limit, and only regular ones; and results, which appear whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from qhyvit_device.errors import DeviceError, InputError


def open_regular(path: Path | str, *, links: bool, folder: int | None = None) -> BinaryIO:
    """A regular file, opened to be read: a FIFO or a device might never answer, or never end.

    Args:
        path: the file.
        links: whether a symbolic link is followed.
        folder: an open folder, in which its name is looked up: the folder's own name may come to mean another one.

    Raises:
        InputError: a link that is not followed, no regular file, or a name that no file can have.
        OSError: missing or unreadable.
    """
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", *(() if links else ("O_NOFOLLOW",))):
        flags |= getattr(os, name, 0)  # not every system has all of them
    try:
        handle = os.open(path, flags) if folder is None else os.open(os.path.basename(path), flags, dir_fd=folder)
    except ValueError as error:
        raise InputError(f"{str(path)!r}: no file has such a name") from error
    except OSError as error:
        if error.errno == errno.ELOOP and not links:
            raise InputError(f"{path}: links are refused in a bundle") from error
        if error.errno == errno.ENXIO:  # a socket, or a device that nothing stands behind
            raise InputError(f"{path}: not a regular file") from error
        raise
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        raise InputError(f"{path}: {'a folder, not a file' if stat.S_ISDIR(kind) else 'not a regular file'}")
    return os.fdopen(handle, "rb")


def _content(stream: BinaryIO, size: int, most: int) -> bytes:
    """All of a file, or more than ``most``. What is asked for is allocated at once: so it is no more than its size."""
    content = stream.read(size + 1)
    while size < len(content) <= most and (piece := stream.read(1 << 20)):  # it grows, or does not say its size
        content += piece
    return content


def read(path: Path, most: int, *, links: bool = False, folder: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        most: bytes that it may have.
        links: see :func:`open_regular`.
        folder: see :func:`open_regular`.

    Raises:
        InputError: missing, unreadable, too large, or see :func:`open_regular`.
    """
    try:
        with open_regular(path, links=links, folder=folder) as stream:
            size = os.fstat(stream.fileno()).st_size
            content = b"" if size > most else _content(stream, size, most)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if max(size, len(content)) > most:
        raise InputError(f"{path}: a file of more than {most >> 20} MB is refused")
    return content


def check_target(path: Path) -> None:
    """Say before the work that results cannot be written to ``path``.

    Raises:
        DeviceError: it is there and no regular file (a device would be replaced by one), or its folder is missing.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DeviceError(f"{path}: a link, a folder or a device, which is not replaced; name a file")
    if not path.parent.is_dir():
        raise DeviceError(f"cannot write {path}: there is no folder {path.parent}")


def write(path: Path, content: bytes) -> None:
    """Write results; the file appears whole.

    Raises:
        DeviceError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise DeviceError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
