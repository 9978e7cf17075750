"""Runs a bundle, or a bare ``.tflite``, on whichever TFLite interpreter is installed."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from qhyvit_device import flat
from qhyvit_device import manifest as manifests
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.manifest import Manifest
from qhyvit_device.preprocess import as_rgb, load_image, normalize, quantize, to_pixels

MAX_MODEL_BYTES = 1 << 30
MOST_THREADS = 256


RUNTIMES = (  # name, module, distributions
    ("ai-edge-litert", "ai_edge_litert.interpreter", ("ai-edge-litert", "ai-edge-litert-nightly")),
    ("tensorflow", "tensorflow.lite.python.interpreter", ("tensorflow", "tensorflow-cpu", "tensorflow-aarch64")),
    ("tflite-runtime", "tflite_runtime.interpreter", ("tflite-runtime", "tflite-runtime-nightly")),
)
_broken: dict[str, str] = {}  # runtimes that are installed and do not work here, with the reason


def find_interpreter() -> tuple[Any, str, str]:
    """(Interpreter class, runtime name, version): ai-edge-litert, else tf.lite, else tflite-runtime.

    One that is installed and fails when it is imported is passed over.

    Raises:
        DeviceError: none is installed or none works, or Python is 32-bit.
    """
    if sys.maxsize < 2**32:
        raise DeviceError("32-bit Python: int8 models crash there in the optimized kernels; use a 64-bit system")
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

    Attributes:
        input, output: interpreter details (dtype, shape, quantization).
        runtime, runtime_version: which interpreter runs it.
    """

    def __init__(self, data: bytes, name: str = "model", threads: int = 1) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise InputError(f"{threads} threads: must be 1 to {MOST_THREADS}")
        flat.check(data, name)
        self._start(data, name, threads)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise InputError(f"{name}: the model has {len(inputs)} inputs and {len(outputs)} outputs, need one of each")
        self.input: dict[str, Any] = inputs[0]
        self.output: dict[str, Any] = outputs[0]

    def _start(self, data: bytes, name: str, threads: int) -> None:
        """The first interpreter that works: an extension built for another numpy may fail only here."""
        while True:
            interpreter, self.runtime, self.runtime_version = find_interpreter()
            try:
                with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                    warnings.simplefilter("ignore")
                    self._interpreter = interpreter(model_content=data, num_threads=threads)
                    self._interpreter.allocate_tensors()
                return
            except (ValueError, RuntimeError) as error:
                reason = _one_line(error).partition(": ")[2]
                raise InputError(f"{name}: {self.runtime} refuses the model: {reason}") from error
            except Exception as error:  # what no model causes: SystemError, ImportError, AttributeError
                _broken[self.runtime] = _one_line(error)

    @staticmethod
    def load(path: Path, threads: int = 1) -> TfliteFile:
        """Read a file.

        Raises:
            InputError: missing, too large, or no model.
        """
        try:
            if path.stat().st_size > MAX_MODEL_BYTES:
                raise InputError(f"{path}: a model of more than 1 GB is refused")
            return TfliteFile(path.read_bytes(), str(path), threads)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

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
        """Input of the model's dtype, [H, W, 3] or [1, H, W, 3] -> output [classes] as the model gives it.

        Raises:
            InputError: another shape or dtype.
        """
        shape, dtype = tuple(self.input["shape"]), self.input["dtype"]
        array = array[None] if array.ndim == len(shape) - 1 else array
        if array.shape != shape or array.dtype != dtype:
            got = f"{array.dtype} {list(array.shape)}"
            raise InputError(f"input must be {np.dtype(dtype).name} {list(shape)}, got {got}")
        self._interpreter.set_tensor(self.input["index"], array)
        self._interpreter.invoke()
        return np.array(self._interpreter.get_tensor(self.output["index"])).ravel()


@dataclass(frozen=True)
class Prediction:
    """One class: its label, index, and softmax probability 0..1."""

    label: str
    index: int
    probability: float


class Model:
    """A bundle ready to run; every file is checked against its checksum first."""

    def __init__(self, bundle: Path, manifest: Manifest, file: TfliteFile, labels: list[str]) -> None:
        self.bundle, self.manifest, self.file, self.labels = bundle, manifest, file, labels

    @staticmethod
    def load(bundle: str | Path, threads: int = 1) -> Model:
        """Open a bundle folder.

        Raises:
            InputError, ManifestError: see :mod:`qhyvit_device.manifest`; or the model is not what it says.
        """
        folder = Path(bundle)
        manifest = manifests.load(folder / manifests.FILE_NAME)
        manifests.verify_files(folder, manifest)
        file = TfliteFile.load(folder / manifest.model_file, threads)
        expected = (1, manifest.input.height, manifest.input.width, 3)
        if tuple(file.input["shape"]) != expected or np.dtype(file.input["dtype"]).name != manifest.input.dtype:
            raise InputError(f"{folder}: the model's input is not the one that its manifest describes")
        labels = (folder / manifest.labels_file).read_text("utf-8-sig", errors="replace").splitlines()
        if len(labels) != manifest.output.classes or int(file.output["shape"][-1]) != len(labels):
            raise InputError(f"{folder}: {len(labels)} labels for {file.output['shape'][-1]} classes")
        return Model(folder, manifest, file, labels)

    def prepare(self, image: Image.Image | Path | str | IO[bytes], mode: str | None = None) -> np.ndarray:
        """The model's input for one image, [H, W, 3]; ``mode`` overrides the bundle's resize mode.

        Raises:
            InputError: see :func:`qhyvit_device.preprocess.load_image` and ``as_rgb``; an unknown mode.
        """
        facts = self.manifest
        how = facts.preprocess if mode is None else replace(facts.preprocess, mode=mode)
        image = as_rgb(image) if isinstance(image, Image.Image) else load_image(image)
        pixels = to_pixels(image, facts.input.height, facts.input.width, how)
        if facts.input.scale is None or facts.input.zero_point is None:
            return normalize(pixels, how)
        return quantize(pixels, how, facts.input.scale, facts.input.zero_point, facts.input.dtype)

    def run(self, array: np.ndarray) -> np.ndarray:
        """Output codes [classes] of one prepared input."""
        return self.file.run(array)

    def logits(self, codes: np.ndarray) -> np.ndarray:
        """Float values of output codes, float32."""
        out = self.manifest.output
        if out.scale is None or out.zero_point is None:
            return codes.astype(np.float32)
        return ((codes.astype(np.float64) - out.zero_point) * out.scale).astype(np.float32)

    def classify(
        self, image: Image.Image | Path | str | IO[bytes], top: int = 5, mode: str | None = None
    ) -> list[Prediction]:
        """The ``top`` classes of one image, most probable first.

        Args:
            image: a PIL image of any mode, which gives what a file of it gives; a path; or an open file.
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
