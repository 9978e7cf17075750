"""Errors of the device stage: printed as one line, with their exit code."""

from __future__ import annotations


class DeviceError(Exception):
    """Base; exit code 2: could not do it."""

    exit_code = 2


class InputError(DeviceError):
    """A file that is missing, unreadable, truncated, or not what it should be."""


class ManifestError(DeviceError):
    """A manifest that breaks its schema, or names files that it must not."""


class CheckFailedError(DeviceError):
    """Ran, but a check on the result failed."""

    exit_code = 1
