"""Runs a bundle: from a picture to what its task makes of the model's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from qhyvit_device import manifest as manifests
from qhyvit_device import results
from qhyvit_device.arrays import Array
from qhyvit_device.errors import InputError
from qhyvit_device.interpreter import TfliteFile as TfliteFile
from qhyvit_device.manifest import Bundle, Input, Manifest, Output
from qhyvit_device.pictures import DRAFT_BYTES, named
from qhyvit_device.preprocess import fitted, normalize, opened, quantize
from qhyvit_device.results import NamedValue, Outputs, Prediction, SegmentationMap
from qhyvit_device.tasks import TASKS

Given = Image.Image | Array | Path | str | IO[bytes]  # one input, or the file of one


def _agrees(said: Input | Output, details: dict[str, Any]) -> bool:
    """Whether type, scale and zero point of a manifest are those of a tensor of the model."""
    dtype, (scale, zero_point) = np.dtype(details["dtype"]), details["quantization"]
    if dtype.kind == "f":
        return (said.dtype, said.scale, said.zero_point) == (dtype.name, None, None)
    return (said.dtype, said.scale, said.zero_point) == (dtype.name, float(scale), int(zero_point)) and scale > 0


def _same_shape(said: Output, details: dict[str, Any]) -> bool:
    """Whether an output has the shape that a manifest says, axes of one element apart."""
    return [n for n in said.shape if n != 1] == [int(n) for n in details["shape"] if n != 1]


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
        described = len(manifest.outputs) == len(file.outputs) and all(
            _agrees(said, details) and _same_shape(said, details)
            for said, details in zip(manifest.outputs, file.outputs, strict=True)
        )
        if not described:
            raise InputError(f"{folder}: the model's outputs are not those that its manifest describes")
        labels: list[str] = []
        if manifest.labels_file is not None:
            labels = bundle.files[manifest.labels_file].decode("utf-8-sig", errors="replace").splitlines()
            if len(labels) != manifest.classes:
                raise InputError(f"{folder}: {len(labels)} labels for {manifest.classes} classes")
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

    def run(self, array: np.ndarray) -> Outputs:
        """All outputs for one prepared input.

        Raises:
            InputError: see :meth:`TfliteFile.invoke`.
        """
        return Outputs(self.manifest.outputs, self.file.invoke(array))

    def check_command(self, command: str) -> None:
        """Refuse to be read in a way that is not that of the bundle's task.

        Raises:
            InputError: ``command`` of ``qhyvit-device`` reads other tasks; which one reads this.
        """
        task = TASKS[self.manifest.task]
        if task.command != command:
            raise InputError(
                f"{self.bundle}: its task is {task.name}, not for {command}: use qhyvit-device {task.command}"
            )

    def classify(self, image: Given, top: int = 5, mode: str | None = None) -> list[Prediction]:
        """The ``top`` classes of one image or array, most probable first.

        Args:
            image: as :meth:`prepare` takes it; a PIL image of any mode gives what a file of it gives.
            top: at least 1.
            mode: "crop" or "squash" in the place of the bundle's.

        Raises:
            InputError: the image cannot be read, ``top`` or ``mode`` is none, or the bundle has no classes.
        """
        if top < 1:
            raise InputError(f"top is {top}, must be 1 or more")
        self.check_command("classify")
        return self.predictions(self.run(self.prepare(image, mode)), top)

    def predictions(self, outputs: Outputs, top: int | None = None, least: float = 0.0) -> list[Prediction]:
        """Classes, most probable first: softmax over them, or of ``multilabel`` a sigmoid each.

        Args:
            outputs: of :meth:`run`.
            top: how many; None: all.
            least: those of at least this probability.

        Raises:
            InputError: the bundle has values and no classes, or some outputs are no numbers.
        """
        if self.manifest.task == "regress":
            raise InputError(f"{self.bundle}: has values, no classes")
        return results.predictions(outputs, self.labels, top, least, several=self.manifest.task == "multilabel")

    def values(self, outputs: Outputs) -> list[NamedValue]:
        """What a regression gives, see :func:`qhyvit_device.results.values`."""
        return results.values(outputs, self.labels)

    def embed(self, image: Given, mode: str | None = None) -> np.ndarray:
        """The image as a vector of length 1, [D] float32; arguments as for :meth:`classify`.

        Raises:
            InputError: the image cannot be read, or the bundle gives no embedding.
        """
        self.check_command("embed")
        return results.embedding(self.run(self.prepare(image, mode)))

    def segment(self, image: Given, mode: str | None = None) -> SegmentationMap:
        """The class of each pixel of the input; arguments as for :meth:`classify`.

        Raises:
            InputError: the image cannot be read, or the bundle gives no map.
        """
        self.check_command("segment")
        return self.segmentation(self.run(self.prepare(image, mode)))

    def segmentation(self, outputs: Outputs, height: int | None = None, width: int | None = None) -> SegmentationMap:
        """The map of outputs, in pixels of the input or of another size: :func:`qhyvit_device.results.segmentation`."""
        size = self.manifest.input.height, self.manifest.input.width
        return results.segmentation(outputs, self.labels, height or size[0], width or size[1])

    def result(self, outputs: Outputs) -> Any:
        """What the bundle's task makes of outputs: five classes, values, a vector, a map; of ``raw`` all by name."""
        task = self.manifest.task
        if task == "raw":
            return {name: outputs.dequantized(name) for name in outputs}
        read: dict[str, Callable[[Outputs], Any]] = {
            "regress": self.values, "embed": results.embedding, "segment": self.segmentation,
        }  # fmt: skip
        return read[task](outputs) if task in read else self.predictions(outputs, 5)
