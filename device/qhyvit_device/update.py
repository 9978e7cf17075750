"""Replacing a bundle on a board that runs: at every moment the folder is a whole bundle, the old one or the new one.

The new bundle is copied beside the folder, checked and run there. Then the two folders change their names in one step
(``renameat2`` with ``RENAME_EXCHANGE``: Linux, on ext4, f2fs, btrfs, xfs, tmpfs and overlayfs). The old one is kept
beside it as ``NAME.previous``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from qhyvit_device import files, signature
from qhyvit_device import manifest as manifests
from qhyvit_device.errors import CheckFailedError, DeviceError, InputError
from qhyvit_device.manifest import Manifest

SECONDS = 600  # of the self test, on a slow board
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def previous_of(folder: Path) -> Path:
    """Where the bundle before lies."""
    return folder.with_name(f"{folder.name}.previous")


def _exchange(one: Path, other: Path) -> None:
    """Let two folders change their names, in one step.

    Raises:
        DeviceError: the system or the file system cannot.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise DeviceError("this system cannot exchange two folders in one step; nothing was changed")
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        reason = os.strerror(ctypes.get_errno())
        raise DeviceError(f"{other}: cannot be exchanged in one step ({reason}); nothing was changed")
    _sync(one.parent)


def _sync(path: Path) -> None:
    """Have a folder's entries, or a file's content, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One update of a folder at a time.

    Raises:
        DeviceError: another one is at work.
    """
    import fcntl

    # a FIFO that somebody put there is not waited for
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(folder.with_name(f".{folder.name}.lock"), flags, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeviceError(f"another update of {folder} is at work; wait for it") from error
        yield
    finally:
        os.close(handle)


def _copy(bundle: Path, target: Path) -> None:
    """The files that a bundle's manifest names, its signature, and no others, on the disk when it returns."""
    raw = files.read(bundle / manifests.FILE_NAME, manifests.MAX_BYTES)
    target.mkdir()
    more = (signature.FILE_NAME,) if (bundle / signature.FILE_NAME).exists() else ()
    for name in (*manifests.load(bundle / manifests.FILE_NAME).checksums, *more):
        (target / name).write_bytes(files.read(bundle / name, manifests.MAX_FILE))
        _sync(target / name)
    (target / manifests.FILE_NAME).write_bytes(raw)
    _sync(target / manifests.FILE_NAME)
    _sync(target)
    _sync(target.parent)


def _check(folder: Path) -> None:
    """Checksums and self test, in a process of its own.

    Raises:
        CheckFailedError: they fail; with the line that they end with.
    """
    command = [sys.executable, "-m", "qhyvit_device", "info", str(folder), "--json"]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(f"{folder}: no self test in {SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
        raise CheckFailedError(lines[-1].removeprefix("qhyvit-device: error: "))


def _version(manifest: Manifest) -> tuple[int, ...]:
    """Of the qhyvit that made a bundle; () where it does not say."""
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", manifest.versions.get("qhyvit", ""))[:3])


def _check_version(old: Path, new: Path) -> None:
    """Refuse a bundle of an older qhyvit.

    Raises:
        InputError: it is older.
    """
    try:
        before = manifests.load(old / manifests.FILE_NAME)
    except DeviceError:  # a damaged one is replaced by whatever works
        return
    after = manifests.load(new / manifests.FILE_NAME)
    if _version(after) < _version(before):
        was, now = (m.versions.get("qhyvit", "an unknown version") for m in (before, after))
        raise InputError(f"{new}: made by qhyvit {now}, older than {was} of {old}; --downgrade takes it all the same")


def update(folder: Path, bundle: Path, *, downgrade: bool = False) -> None:
    """Replace ``folder`` by a copy of ``bundle``; killed at any moment, it is a whole bundle that passed its checks.

    Args:
        folder: where programs look for the bundle; made where it is not there yet.
        bundle: the new one.
        downgrade: take one that an older qhyvit made.

    Raises:
        CheckFailedError: the new one fails its checks; ``folder`` is what it was.
        InputError: the new one is no bundle, or older.
        DeviceError: another update is at work, or the file system cannot exchange folders.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder}: a link or no folder; name the folder of the bundle")
    folder, previous = folder.absolute(), previous_of(folder.absolute())
    following = folder.with_name(f".{folder.name}.next")
    manifests.load(bundle / manifests.FILE_NAME)  # of a mistake no lock is left
    with _alone(folder):
        shutil.rmtree(following, ignore_errors=True)  # of an update that was killed
        try:
            if folder.exists() and not downgrade:
                _check_version(folder, bundle)
            _copy(bundle, following)
            _check(following)
            _put(following, folder, previous)
        finally:
            shutil.rmtree(following, ignore_errors=True)


def _put(following: Path, folder: Path, previous: Path) -> None:
    if not folder.exists():
        following.rename(folder)
        _sync(folder.parent)
        return
    shutil.rmtree(previous, ignore_errors=True)
    following.rename(previous)  # for a moment the new one has this name
    _exchange(previous, folder)
    try:
        _check(folder)
    except CheckFailedError:
        _exchange(previous, folder)
        raise


def go_back(folder: Path) -> None:
    """Exchange a bundle for the one before it.

    Raises:
        CheckFailedError: the one before fails its checks; nothing is changed.
        InputError: there is none.
        DeviceError: see :func:`update`.
    """
    folder, previous = folder.absolute(), previous_of(folder.absolute())
    if not previous.is_dir():
        raise InputError(f"{previous}: there is no bundle before this one")
    with _alone(folder):
        _check(previous)
        _exchange(previous, folder)
