"""Errors of the device stage: printed as one line, with their exit code."""

from __future__ import annotations


class QhyvitError(Exception):
    """Base of every error, here and in the host stage, that a user can cause and cure; exit code 2: could not do it."""

    exit_code = 2


class DeviceError(QhyvitError):
    """Base of the device stage's."""


class InputError(DeviceError):
    """A file that is missing, unreadable, truncated, or not what it should be."""


class ManifestError(DeviceError):
    """A manifest that breaks its schema, or names files that it must not."""


class CheckFailedError(DeviceError):
    """Ran, but a check on the result failed."""

    exit_code = 1
