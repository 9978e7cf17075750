"""Runs a bundle, or a bare ``.tflite``, on whichever TFLite interpreter is installed."""

from __future__ import annotations

import contextlib
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from qhyvit_device import flat
from qhyvit_device import manifest as manifests
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.manifest import MAX_MODEL_BYTES, Input, Manifest, Output
from qhyvit_device.preprocess import Preprocess, load_image, normalize, quantize, to_pixels


def find_interpreter() -> tuple[Any, str, str]:
    """(Interpreter class, runtime name, version): ai-edge-litert, else tf.lite, else tflite-runtime.

    Raises:
        DeviceError: none can be loaded, or Python is 32-bit.
    """
    if sys.maxsize < 2**32:
        raise DeviceError("32-bit Python: int8 models crash in its optimized kernels; a 64-bit system is needed")
    from importlib import import_module, metadata

    known = (
        ("ai-edge-litert", "ai_edge_litert.interpreter"),
        ("tensorflow", "tensorflow.lite.python.interpreter"),
        ("tflite-runtime", "tflite_runtime.interpreter"),
    )
    reasons = ""
    for name, module in known:
        try:
            found = import_module(module).Interpreter
        except ImportError as error:  # missing, or one of its libraries does not load
            if not isinstance(error, ModuleNotFoundError):
                reasons += f"; {name}: {error}".splitlines()[0]
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            return found, name, metadata.version(name)
        return found, name, "unknown"
    raise DeviceError(f"no TFLite interpreter can be loaded; pip install ai-edge-litert{reasons}")


class TfliteFile:
    """One model in an interpreter; input and output are single tensors.

    Attributes:
        input, output: interpreter details: dtype, shape, quantization = (scale, zero point).
        name: of the file, for messages.
        runtime, runtime_version: which interpreter runs it.

    Raises:
        InputError: no model, truncated, refused by the interpreter, or not one input and one output.
    """

    def __init__(self, data: bytes, name: str = "model", threads: int = 1) -> None:
        flat.check(data, name)
        self.name = name
        interpreter, self.runtime, self.runtime_version = find_interpreter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._interpreter = interpreter(model_content=data, num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{name}: {self.runtime} refuses the model: {_line(error)}") from error
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise InputError(f"{name}: the model has {len(inputs)} inputs and {len(outputs)} outputs, need one of each")
        self.input: dict[str, Any] = inputs[0]
        self.output: dict[str, Any] = outputs[0]

    @staticmethod
    def load(path: Path, threads: int = 1) -> TfliteFile:
        """Read a file.

        Raises:
            InputError: missing, too large, or no model.
        """
        try:
            if not path.is_file():
                raise InputError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
            if path.stat().st_size > MAX_MODEL_BYTES:
                raise InputError(f"{path}: a model of more than {MAX_MODEL_BYTES >> 20} MB is refused")
            return TfliteFile(path.read_bytes(), str(path), threads)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

    @property
    def delegate_partitions(self) -> int | None:
        """How many parts of the graph XNNPACK took; None where the runtime does not tell."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        return None if details is None else sum(d["op_name"] == "DELEGATE" for d in details())

    def run(self, array: np.ndarray) -> np.ndarray:
        """Input of the model's dtype, [H, W, 3] or [1, H, W, 3] -> output [classes] as the model gives it.

        Raises:
            InputError: another shape or dtype.
            DeviceError: a kernel failed.
        """
        shape, dtype = tuple(int(s) for s in self.input["shape"]), np.dtype(self.input["dtype"])
        array = array[None] if array.ndim == len(shape) - 1 else array
        if array.shape != shape or array.dtype != dtype:
            raise InputError(f"input must be {dtype.name} {list(shape)}, got {array.dtype} {list(array.shape)}")
        self._interpreter.set_tensor(self.input["index"], array)
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise DeviceError(f"{self.name}: {self.runtime} could not run the model: {_line(error)}") from error
        return np.array(self._interpreter.get_tensor(self.output["index"])).ravel()


def _line(error: Exception) -> str:
    """First line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_tensor(name: str, details: dict[str, Any], shape: tuple[int, ...], facts: Input | Output) -> None:
    """The manifest must tell of a tensor what the file says: codes read with another scale are silently wrong."""
    scale, zero_point = details["quantization"]
    got = (tuple(int(s) for s in details["shape"]), np.dtype(details["dtype"]).name)
    if got != (shape, facts.dtype):
        raise InputError(f"{name} is {got[1]} {list(got[0])} in the model, {facts.dtype} {list(shape)} in the manifest")
    if facts.scale is not None and (np.float32(scale), zero_point) != (np.float32(facts.scale), facts.zero_point):
        expected = f"scale {facts.scale}, zero point {facts.zero_point}"
        raise InputError(f"{name} has scale {scale}, zero point {zero_point} in the model, {expected} in the manifest")


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
        data = manifests.read_checked(folder, manifest, manifest.model_file)
        file = TfliteFile(data, str(folder / manifest.model_file), threads)
        size = (manifest.input.height, manifest.input.width)
        _check_tensor(f"{folder}: input", file.input, (1, *size, 3), manifest.input)
        _check_tensor(f"{folder}: output", file.output, (1, manifest.output.classes), manifest.output)
        labels = manifests.read_checked(folder, manifest, manifest.labels_file).decode(errors="replace").splitlines()
        if len(labels) != manifest.output.classes:
            raise InputError(f"{folder}: {len(labels)} labels for {manifest.output.classes} classes")
        return Model(folder, manifest, file, labels)

    def prepare(self, image: Image.Image | Path | IO[bytes], how: Preprocess | None = None) -> np.ndarray:
        """The model's input for one image, [H, W, 3]; ``how`` replaces the bundle's preprocessing.

        Raises:
            InputError: no image.
        """
        facts, how = self.manifest.input, how or self.manifest.preprocess
        image = image if isinstance(image, Image.Image) else load_image(image)
        pixels = to_pixels(image, facts.height, facts.width, how)
        if facts.scale is None or facts.zero_point is None:
            return normalize(pixels, how)
        return quantize(pixels, how, facts.scale, facts.zero_point, facts.dtype)

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
        self, image: Image.Image | Path | IO[bytes], top: int = 5, how: Preprocess | None = None
    ) -> list[Prediction]:
        """The ``top`` classes of one image, most probable first; of equal ones the lower index.

        Raises:
            InputError: no image.
        """
        logits = self.logits(self.run(self.prepare(image, how))).astype(np.float64)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        order = np.argsort(-logits, kind="stable")[: max(top, 0)]
        return [Prediction(self.labels[i], int(i), float(shares[i])) for i in order]
