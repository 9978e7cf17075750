"""Errors of the device stage: printed as one line, with their exit code."""

from __future__ import annotations


class QhyvitError(Exception):
    """Base of every error, here and in the host stage, that a user can cause and cure; exit code 2: could not do it."""

    exit_code = 2


class DeviceError(QhyvitError):
    """Base of the device stage's."""


class InputError(DeviceError):
    """A file or folder that is missing, unreadable, truncated, or not what it should be."""


class ManifestError(DeviceError):
    """A manifest that breaks its schema, or names files that it must not."""


class CheckFailedError(DeviceError):
    """The work was done, but a check on its result failed."""

    exit_code = 1


def said(error: BaseException) -> str:
    """One line about an error: what it says; of one that no user can cause, that it is a fault of this program."""
    if isinstance(error, QhyvitError):
        return " ".join(str(error).split("\n"))
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error)):
        return "out of memory; use fewer images, a smaller model or a larger machine"
    return f"{what}; this is a fault of qhyvit, please report it; --debug shows the traceback"
