"""The error family of the host stage: each error knows its exit code (1 a check failed, 2 could not do it).

Printed as one line, never as a traceback. The base is the device stage's, whose code runs here as well,
and so are those that both stages raise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from qhyvit_device.errors import CheckFailedError as CheckFailedError
from qhyvit_device.errors import InputError as InputError
from qhyvit_device.errors import QhyvitError as QhyvitError


def near(word: str, known: Iterable[str]) -> str:
    """``; near: ...`` or all that is known, to end a message with."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"; near: {', '.join(close)}" if close else f"; known: {', '.join(names) or 'none'}"


class UsageError(QhyvitError):
    """A wrong argument, name or combination of options."""


class WeightsError(QhyvitError):
    """Weights that do not belong to the model that was named."""


class ExportError(QhyvitError):
    """A model that cannot be turned into a float ``.tflite``."""


class GraphError(QhyvitError):
    """A graph that breaks a rule of ours, or holds what we do not support."""


class CalibrationError(QhyvitError):
    """A search that cannot go on: values or gradients that are not finite."""


class PlanError(QhyvitError):
    """A quantization plan that cannot be expressed in TFLite, or does not fit its graph."""


class OutputError(QhyvitError):
    """An output that could not be written (permissions, full disk, exists already)."""
