"""A ``.tflite`` on whichever TFLite interpreter is installed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device import files, flat
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.terminal import shown

MAX_MODEL_BYTES = 1 << 30
MOST_THREADS = 256
RUNTIMES = (  # name, module, distributions
    ("ai-edge-litert", "ai_edge_litert.interpreter", ("ai-edge-litert", "ai-edge-litert-nightly")),
    ("tensorflow", "tensorflow.lite.python.interpreter", ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64")),
    ("tflite-runtime", "tflite_runtime.interpreter", ("tflite-runtime", "tflite-runtime-nightly")),
)
_broken: dict[str, str] = {}  # runtimes that are installed and do not work here, with the reason
_starting = threading.RLock()  # stderr is set aside meanwhile, for all threads
_files: weakref.WeakSet[TfliteFile] = weakref.WeakSet()


def find_interpreter() -> tuple[Any, str, str]:
    """(Interpreter class, runtime name, version): ai-edge-litert, else tf.lite, else tflite-runtime.

    One that is installed and fails when it is imported is passed over.

    Raises:
        DeviceError: none is installed or none works, or Python is 32-bit.
    """
    if sys.maxsize < 2**32:
        raise DeviceError("32-bit Python: int8 models crash there in the optimized kernels; use a 64-bit system")
    with _starting:
        return _first_that_works()


def _first_that_works() -> tuple[Any, str, str]:
    from importlib import import_module, metadata

    for name, module, distributions in RUNTIMES:
        if name in _broken:
            continue
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # numpy prints a page where an extension is too old for it
                found = import_module(module).Interpreter
        except ModuleNotFoundError as error:
            if error.name is None or module.startswith(error.name):  # else it is there, and lacks what it needs
                continue
            _broken[name] = f"{type(error).__name__}: {error}"
            continue
        except Exception as error:  # an extension may raise anything
            _broken[name] = _one_line(error)
            continue
        for distribution in distributions:
            with contextlib.suppress(metadata.PackageNotFoundError):
                return found, name, metadata.version(distribution)
        return found, name, "unknown"
    if _broken:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in _broken.items())
        raise DeviceError(f"no TFLite interpreter works here ({reasons}); pip install ai-edge-litert")
    raise DeviceError("no TFLite interpreter is installed; pip install ai-edge-litert")


def _one_line(error: BaseException) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


class TfliteFile:
    """One model in an interpreter, with one input.

    Threads may share it: one inference runs at a time. A forked process gets an interpreter of its own when it first
    runs one; pickled (for a spawned process) it is made again from its bytes.

    Attributes:
        input, outputs: interpreter details (dtype, shape, quantization).
        runtime, runtime_version: which interpreter runs it.
    """

    def __init__(self, data: bytes, name: str = "model", threads: int = 1) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise InputError(f"{threads} threads: must be 1 to {MOST_THREADS}")
        flat.check(data, name)
        self._arguments = data, name, threads
        self._lock = threading.Lock()
        self._started: Any = None
        self._left: Any = None  # a parent's: to end it would wait for threads that a fork leaves behind
        with self._refusing():
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or not outputs:
            names = ", ".join(shown(details["name"]) for details in inputs[:8])
            said = f"{len(inputs)} inputs ({names}) and {len(outputs)} outputs"
            raise InputError(f"{name}: the model has {said}, need one input and at least one output")
        self.input: dict[str, Any] = inputs[0]
        self.outputs: list[dict[str, Any]] = outputs
        _files.add(self)

    def __reduce__(self) -> tuple[Callable[..., TfliteFile], tuple[bytes, str, int]]:
        return TfliteFile, self._arguments

    def forked(self) -> None:
        """In a forked process: a lock may be held by a thread that is not there."""
        self._lock, self._left, self._started = threading.Lock(), self._started, None

    @property
    def _interpreter(self) -> Any:
        if self._started is None:
            self._start(*self._arguments)
        return self._started

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """What an interpreter says of a model, in one line."""
        try:
            yield
        except (ValueError, RuntimeError, IndexError) as error:
            reason = _one_line(error).partition(": ")[2]
            raise InputError(f"{self._arguments[1]}: {self.runtime} refuses the model: {reason}") from error

    def _start(self, data: bytes, name: str, threads: int) -> None:
        """The first interpreter that works: an extension built for another numpy may fail only here."""
        while True:
            interpreter, self.runtime, self.runtime_version = find_interpreter()
            try:
                with _starting, contextlib.redirect_stderr(io.StringIO()), self._refusing():
                    started = interpreter(model_content=data, num_threads=threads)
                    started.allocate_tensors()
                self._started = started
                return
            except InputError:
                raise
            except Exception as error:  # what no model causes: SystemError, ImportError, AttributeError
                _broken[self.runtime] = _one_line(error)

    @staticmethod
    def load(path: Path, threads: int = 1) -> TfliteFile:
        """Read a file; a link to it is followed.

        Raises:
            InputError: missing, too large, no regular file, or no model.
        """
        return TfliteFile(files.read(path, MAX_MODEL_BYTES, links=True), str(path), threads)

    @property
    def size_bytes(self) -> int:
        """Of the file."""
        return len(self._arguments[0])

    @property
    def delegate_partitions(self) -> int | None:
        """How many parts of the graph XNNPACK took; None where the runtime does not tell."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        return None if details is None else sum(d["op_name"] == "DELEGATE" for d in details())

    def graph(self) -> dict[str, Any]:
        """Plain data: ``nodes``, each [op, input tensors, output tensors], and ``tensors``, id -> [dtype, shape].

        Empty where the runtime does not tell.
        """
        details = getattr(self._interpreter, "_get_ops_details", None)
        if details is None:
            return {}
        nodes = [
            [d["op_name"], [int(t) for t in d["inputs"]], [int(t) for t in d["outputs"]]]
            for d in details() if d["op_name"] != "DELEGATE"
        ]  # fmt: skip
        tensors = {
            str(t["index"]): [np.dtype(t["dtype"]).name, [int(v) for v in t["shape"]]]
            for t in self._interpreter.get_tensor_details()
        }
        return {"nodes": nodes, "tensors": tensors}

    @property
    def output(self) -> dict[str, Any]:
        """Details of the first output."""
        return self.outputs[0]

    def invoke(self, array: np.ndarray) -> list[np.ndarray]:
        """Input of the model's dtype, [H, W, C] or [1, H, W, C] -> every output as the model gives it.

        Raises:
            InputError: another shape or dtype, the interpreter cannot run the model, or an output has another shape
                than the model says.
        """
        shape, dtype = tuple(map(int, self.input["shape"])), self.input["dtype"]
        array = array[None] if array.ndim == len(shape) - 1 else array
        if array.shape != shape or array.dtype != dtype:
            got = f"{array.dtype} {list(array.shape)}"
            raise InputError(f"input must be {np.dtype(dtype).name} {list(shape)}, got {got}")
        with self._lock, self._refusing():
            self._interpreter.set_tensor(self.input["index"], array)
            self._interpreter.invoke()
            found = [np.array(self._interpreter.get_tensor(details["index"])) for details in self.outputs]
        for details, codes in zip(self.outputs, found, strict=True):
            if codes.shape != tuple(details["shape"]) or codes.dtype != details["dtype"]:
                name, has, said = self._arguments[1], [*codes.shape], [int(n) for n in details["shape"]]
                raise InputError(
                    f"{name}: an output is {has} in the place of {said}; its size must not depend on the input"
                )
        return found

    def run(self, array: np.ndarray) -> np.ndarray:
        """All outputs of :meth:`invoke`, one after the other, [N]."""
        return np.concatenate([codes.ravel() for codes in self.invoke(array)])


def _after_fork() -> None:
    global _starting
    _starting = threading.RLock()
    for file in list(_files):
        file.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
