"""A model that follows its bundle: an update of the folder is picked up between two pictures."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.manifest import FILE_NAME
from qhyvit_device.results import Prediction
from qhyvit_device.runner import Given, Model

Identity = tuple[int, ...]


def _identity(bundle: Path) -> Identity:
    """Which folder and manifest a name stands for now."""
    try:
        folder, manifest = os.stat(bundle), os.stat(bundle / FILE_NAME)
    except OSError:
        return ()
    return folder.st_dev, folder.st_ino, manifest.st_ino, manifest.st_mtime_ns


class LiveModel:
    """A bundle's model (``current()``), loaded again where ``qhyvit-device update`` has replaced the folder.

    One that cannot be loaded, or has another task, is passed over, and the one before goes on. Threads may share it.

    Args:
        bundle: its folder.
        threads: of the interpreter.
        load: opens a bundle; :func:`qhyvit_device.trial.load` starts its model in a process of its own first.

    Attributes:
        refused: why the newest bundle is not used; None where it is.

    Raises:
        DeviceError: see :meth:`qhyvit_device.runner.Model.load`.
    """

    def __init__(self, bundle: str | Path, threads: int = 1, load: Callable[[Path, int], Model] = Model.load) -> None:
        self._bundle, self._threads, self._load, self._lock = Path(bundle), threads, load, threading.Lock()
        self._seen = _identity(self._bundle)
        self._model = load(self._bundle, threads)
        self.refused: DeviceError | None = None

    def current(self) -> Model:
        """The model of the bundle that is there now; who holds it goes on with it whatever is updated."""
        with self._lock:
            found = _identity(self._bundle)
            if found and found != self._seen:
                self._seen = found
                try:
                    self._model, self.refused = self._next(), None
                except DeviceError as error:
                    self.refused = error
            return self._model

    def _next(self) -> Model:
        found, before = self._load(self._bundle, self._threads), self._model.manifest.task
        if found.manifest.task != before:
            raise InputError(f"{self._bundle}: its task is {found.manifest.task}, and was {before}: start again")
        return found

    def classify(self, image: Given, top: int = 5, mode: str | None = None) -> list[Prediction]:
        """See :meth:`qhyvit_device.runner.Model.classify`."""
        return self.current().classify(image, top, mode)
