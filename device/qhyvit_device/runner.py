"""Runs a bundle, or a bare ``.tflite``, on whichever TFLite interpreter is installed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from qhyvit_device import files, flat
from qhyvit_device import manifest as manifests
from qhyvit_device.arrays import Array
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.manifest import Bundle, Input, Manifest, Output
from qhyvit_device.pictures import DRAFT_BYTES, named
from qhyvit_device.preprocess import fitted, normalize, opened, quantize

MAX_MODEL_BYTES = 1 << 30
MOST_THREADS = 256
Given = Image.Image | Array | Path | str | IO[bytes]  # one input, or the file of one

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
    """One model in an interpreter; input and output are single tensors.

    Threads may share it: one inference runs at a time. A forked process gets an interpreter of its own when it first
    runs one; pickled (for a spawned process) it is made again from its bytes.

    Attributes:
        input, output: interpreter details (dtype, shape, quantization).
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
        if len(inputs) != 1:
            names = ", ".join(str(i["name"])[:40] for i in inputs)
            raise InputError(f"{name}: the model has {len(inputs)} inputs ({names}), need one")
        if len(outputs) != 1:
            raise InputError(f"{name}: the model has {len(outputs)} outputs, need one")
        self.input: dict[str, Any] = inputs[0]
        self.output: dict[str, Any] = outputs[0]
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

    def run(self, array: np.ndarray) -> np.ndarray:
        """Input of the model's dtype, [H, W, C] or [1, H, W, C] -> output [classes] as the model gives it.

        Raises:
            InputError: another shape or dtype, or the interpreter cannot run the model.
        """
        shape, dtype = tuple(self.input["shape"]), self.input["dtype"]
        array = array[None] if array.ndim == len(shape) - 1 else array
        if array.shape != shape or array.dtype != dtype:
            got = f"{array.dtype} {list(array.shape)}"
            raise InputError(f"input must be {np.dtype(dtype).name} {list(shape)}, got {got}")
        with self._lock, self._refusing():
            self._interpreter.set_tensor(self.input["index"], array)
            self._interpreter.invoke()
            return np.array(self._interpreter.get_tensor(self.output["index"])).ravel()


def _after_fork() -> None:
    global _starting
    _starting = threading.RLock()
    for file in list(_files):
        file.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _agrees(said: Input | Output, details: dict[str, Any]) -> bool:
    """Whether type, scale and zero point of a manifest are those of a tensor of the model."""
    dtype, (scale, zero_point) = np.dtype(details["dtype"]), details["quantization"]
    if dtype.kind == "f":
        return (said.dtype, said.scale, said.zero_point) == (dtype.name, None, None)
    return (said.dtype, said.scale, said.zero_point) == (dtype.name, float(scale), int(zero_point)) and scale > 0


@dataclass(frozen=True)
class Prediction:
    """One class: its label, index, and softmax probability 0..1."""

    label: str
    index: int
    probability: float


class Model:
    """A bundle ready to run; every file is checked against its checksum first.

    Threads may share it, see :class:`TfliteFile`; it may be forked with its process, and pickled.

    Attributes:
        bundle: its folder.
        manifest: what its files are.
        file: the model in its interpreter.
        labels: class names.
        picture: content of the self test's image.
    """

    def __init__(
        self, bundle: Path, manifest: Manifest, file: TfliteFile, labels: list[str], picture: bytes = b""
    ) -> None:
        self.bundle, self.manifest, self.file, self.labels, self.picture = bundle, manifest, file, labels, picture

    @staticmethod
    def load(bundle: str | Path, threads: int = 1) -> Model:
        """Open a bundle folder.

        Raises:
            InputError, ManifestError: see :mod:`qhyvit_device.manifest`; or the model is not what it says.
        """
        return Model.of(manifests.read_bundle(Path(bundle)), threads)

    @staticmethod
    def of(bundle: Bundle, threads: int = 1) -> Model:
        """A bundle that is read and checked already.

        Raises:
            InputError: the model is not what the manifest says.
        """
        manifest, folder = bundle.manifest, bundle.folder
        file = TfliteFile(bundle.files[manifest.model_file], str(folder / manifest.model_file), threads)
        if tuple(file.input["shape"]) != (1, *manifest.input.shape) or not _agrees(manifest.input, file.input):
            raise InputError(f"{folder}: the model's input is not the one that its manifest describes")
        if not _agrees(manifest.output, file.output):
            raise InputError(f"{folder}: the model's output is not the one that its manifest describes")
        labels = bundle.files[manifest.labels_file].decode("utf-8-sig", errors="replace").splitlines()
        shape = [int(v) for v in file.output["shape"]]
        if len(labels) != manifest.output.classes or shape[-1:] != [len(labels)] or np.prod(shape) != len(labels):
            raise InputError(f"{folder}: {len(labels)} labels for {shape[-1] if shape else 1} classes")
        return Model(folder, manifest, file, labels, bundle.files[manifest.test.image_file])

    def prepare(self, image: Given, mode: str | None = None) -> np.ndarray:
        """The model's input for one image or array, [H, W, C]; ``mode`` overrides the bundle's resize mode.

        Args:
            image: a PIL image, or an array [H, W, C] of the input's size: pixels as uint8, or what the network itself
                takes as floats; or the path of either, or an open file.
            mode: of images.

        Raises:
            InputError: see :func:`qhyvit_device.preprocess.opened` and ``fitted``; an unknown mode. Decoding may take
                ``DRAFT_BYTES``.
        """
        facts = self.manifest
        how = facts.preprocess if mode is None else replace(facts.preprocess, mode=mode)
        if isinstance(image, Image.Image | np.ndarray):
            found = fitted(image, facts.input.shape, how)
        else:
            stored = opened(image, facts.input.shape, DRAFT_BYTES)
            with named(image):
                found = fitted(stored, facts.input.shape, how)
        if facts.input.scale is None or facts.input.zero_point is None:
            return normalize(found, how)
        return quantize(found, how, facts.input.scale, facts.input.zero_point, facts.input.dtype)

    def run(self, array: np.ndarray) -> np.ndarray:
        """Output codes [classes] of one prepared input."""
        return self.file.run(array)

    def logits(self, codes: np.ndarray) -> np.ndarray:
        """Float values of output codes, float32."""
        out = self.manifest.output
        if out.scale is None or out.zero_point is None:
            return codes.astype(np.float32)
        return ((codes.astype(np.float64) - out.zero_point) * out.scale).astype(np.float32)

    def classify(self, image: Given, top: int = 5, mode: str | None = None) -> list[Prediction]:
        """The ``top`` classes of one image or array, most probable first.

        Args:
            image: as :meth:`prepare` takes it; a PIL image of any mode gives what a file of it gives.
            top: at least 1.
            mode: "crop" or "squash" in the place of the bundle's.

        Raises:
            InputError: the image cannot be read, or ``top`` or ``mode`` is none.
        """
        if top < 1:
            raise InputError(f"top is {top}, must be 1 or more")
        return self.top(self.run(self.prepare(image, mode)), top)

    def top(self, codes: np.ndarray, top: int = 5) -> list[Prediction]:
        """The ``top`` classes of output codes, most probable first."""
        logits = self.logits(codes).astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        order = np.argsort(-logits, kind="stable")[:top]
        return [Prediction(self.labels[i], int(i), float(shares[i])) for i in order]
