"""``manifest.json`` of a bundle: what the model takes, gives and was made from. Untrusted when read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from qhyvit_device import files, signature
from qhyvit_device.arrays import MOST_CHANNELS, MOST_SIDE, Shape
from qhyvit_device.errors import InputError, ManifestError
from qhyvit_device.flat import LARGEST_TENSOR, MOST_AXES
from qhyvit_device.matching import matches
from qhyvit_device.preprocess import COLOURS, Preprocess
from qhyvit_device.tasks import TASKS
from qhyvit_device.terminal import shown

SCHEMA_VERSION = 2
FILE_NAME = "manifest.json"
RANDOM_WEIGHTS = "random"  # what ``created_by`` says of weights that were drawn
RANDOM = "the weights are random: this file shows size and time, and its answers mean nothing"
MAX_BYTES = 4 << 20
MAX_CLASSES = 1 << 20
MAX_MAP_CLASSES = 1 << 12  # a row of a map is held in float
MAX_OUTPUTS = 64
MAX_NAME = 255  # bytes
MAX_FILE = 1 << 30
FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)  # of a FIFO the system would wait for a writer


@dataclass(frozen=True)
class Input:
    """The model's input: [1, height, width, channels]; value = scale * (code - zero_point), none for float.

    ``channel_order``: RGB of three channels, L (gray) of one, "" of others: see :func:`channel_order`.
    """

    height: int
    width: int
    dtype: str
    scale: float | None
    zero_point: int | None
    channel_order: str = "RGB"
    layout: str = "NHWC"
    channels: int = 3

    @property
    def shape(self) -> Shape:
        """Height, width, channels."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class Output:
    """One of the model's outputs, in the model's order; ``shape`` with the batch of 1, value as for the input.

    The name is that of no file or folder above: it may become one.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class _OnlyOutput:
    """``output`` of schema 1: [1, classes] logits."""

    classes: int
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class SelfTest:
    """An image of the bundle and the output codes that the model gave for it where it was made.

    ``codes``: of all outputs one after the other, every ``step``-th; of a float output its values in 1024ths, rounded.
    ``arm64_codes``: those that arm64's kernels give, by the host's simulation; empty where it made none.
    """

    image_file: str
    codes: tuple[int, ...]
    machine: str
    runtime: str
    arm64_codes: tuple[int, ...] = ()
    step: int = 1


def channel_order(channels: int) -> str:
    """What the channels of an input are: RGB of three, L (gray) of one, "" of others."""
    return COLOURS.get(channels, "")


@dataclass(frozen=True)
class Manifest:
    """Everything about a bundle. File names are plain names inside the bundle."""

    model: str
    profile: str
    input: Input
    outputs: tuple[Output, ...]
    preprocess: Preprocess
    test: SelfTest
    checksums: Mapping[str, str]  # file name -> sha256
    model_file: str = "model.tflite"
    labels_file: str | None = "labels.txt"
    versions: Mapping[str, str] = field(default_factory=dict)
    created_by: Mapping[str, Any] = field(default_factory=dict)
    task: str = "classify"
    schema_version: int = SCHEMA_VERSION

    @property
    def has_random_weights(self) -> bool:
        """Whether the weights were drawn, for a trial."""
        return self.created_by.get("weights") == RANDOM_WEIGHTS

    def __post_init__(self) -> None:
        names = [o.name for o in self.outputs]
        for name in (*self.needed, *self.checksums, *names):
            if Path(name).name != name or name in (".", "..", "") or "\\" in name or not _is_storable(name):
                raise ManifestError(f"manifest: {name!r} is not a plain file name")
        for name in self.needed:
            if name not in self.checksums:
                raise ManifestError(f"manifest: no checksum for {name!r}")
        if not 1 <= len(names) <= MAX_OUTPUTS or len(set(names)) != len(names):
            raise ManifestError(f"manifest: need 1 to {MAX_OUTPUTS} outputs, each with a name of its own")
        if not (1 <= self.input.height <= MOST_SIDE and 1 <= self.input.width <= MOST_SIDE):
            raise ManifestError(f"manifest: input of {self.input.height}x{self.input.width} pixels is out of bounds")
        channels = self.input.channels
        if not 1 <= channels <= MOST_CHANNELS:
            raise ManifestError(f"manifest: input of {channels} channels is out of bounds")
        if self.preprocess.channels != channels:
            raise ManifestError(f"manifest: {self.preprocess.channels} means for {channels} channels")
        found, needed = f"{self.input.layout} {self.input.channel_order}", f"NHWC {channel_order(channels)}"
        if found != needed:
            raise ManifestError(f"manifest: input is {shown(found)}, need {needed}")
        self._check_task()

    def _check_task(self) -> None:
        """Whether the outputs and labels are those of the task, within bounds."""
        if self.task not in TASKS:
            raise ManifestError(f"manifest: task {shown(self.task)!r} is unknown; known: {', '.join(TASKS)}")
        wanted = TASKS[self.task].labels
        if wanted is not None and wanted != (self.labels_file is not None):
            raise ManifestError(f"manifest: a bundle for {self.task} has {'a' if wanted else 'no'} labels_file")
        if not 1 <= self.test.step <= LARGEST_TENSOR:
            raise ManifestError(f"manifest: test.step {self.test.step} is out of bounds")
        for output in self.outputs:
            # the shape first: a product of very many sizes takes very long
            small = len(output.shape) <= MOST_AXES and all(1 <= n <= LARGEST_TENSOR for n in output.shape)
            if not small or output.size > (LARGEST_TENSOR if self.task in ("raw", "segment") else MAX_CLASSES):
                raise ManifestError(f"manifest: output {shown(output.name)} of shape {_said(output)} is out of bounds")
        first = self.outputs[0].shape
        if self.task == "segment" and not (
            len(first) == 4 and first[0] == 1 and max(first) <= MOST_SIDE and first[3] <= MAX_MAP_CLASSES
        ):
            raise ManifestError(f"manifest: a map of shape {_said(self.outputs[0])}, need [1, height, width, classes]")

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the files that a device reads."""
        names = (self.model_file, self.labels_file, self.test.image_file)
        return tuple(name for name in names if name is not None)

    @property
    def classes(self) -> int:
        """Classes or labels that the first output tells apart, or the values that it holds."""
        return self.outputs[0].shape[-1] if self.task == "segment" else self.outputs[0].size


def _said(output: Output) -> str:
    """A shape, as far as it is none that means harm."""
    return str([*output.shape[:MOST_AXES]])


def _is_storable(name: str) -> bool:
    """Whether a file can have this name."""
    try:
        return "\0" not in name and len(name.encode()) <= MAX_NAME
    except UnicodeEncodeError:
        return False


def _build(kind: Any, raw: Any, where: str) -> Any:
    """One dataclass from plain data: unknown, missing and wrongly typed keys are errors that name the key."""
    if is_dataclass(kind):
        if not isinstance(raw, dict):
            raise ManifestError(f"manifest: {where} must be an object")
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(raw) - set(hints))
        if unknown:
            raise ManifestError(f"manifest: unknown key {where}.{shown(unknown[0])}")
        values = {name: _build(hints[name], value, f"{where}.{name}") for name, value in raw.items()}
        try:
            return kind(**values)  # type: ignore[operator]
        except TypeError as error:
            raise ManifestError(f"manifest: {where}: {error}") from error
    if typing.get_origin(kind) is tuple:
        of = typing.get_args(kind)
        if isinstance(raw, list) and is_dataclass(of[0]):
            return tuple(_build(of[0], value, f"{where}[{i}]") for i, value in enumerate(raw))
        good = isinstance(raw, list) and ((len(of) == 2 and of[1] is Ellipsis) or len(raw) == len(of))
        if not good or not all(matches(v, of[0]) for v in raw):
            raise ManifestError(f"manifest: {where} is no list of the right kind")
        return tuple(raw)
    if not matches(raw, kind):
        raise ManifestError(f"manifest: {where} has the wrong type {type(raw).__name__}")
    return raw


def _current(raw: Any) -> Any:
    """Plain data of any known schema as those of the newest.

    Schema 1 had one output, logits of a classifier, and no task.
    """
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version == SCHEMA_VERSION:
        return raw
    if version != 1:
        raise ManifestError(f"manifest: schema_version is {version}, need {SCHEMA_VERSION} or 1; update qhyvit-device")
    if "output" not in raw:
        raise ManifestError("manifest: manifest.output is missing")
    for new in ("outputs", "task"):
        if new in raw:
            raise ManifestError(f"manifest: unknown key manifest.{new}")
    old: _OnlyOutput = _build(_OnlyOutput, raw["output"], "manifest.output")
    logits = {**asdict(old), "name": "logits", "shape": [1, old.classes]}
    del logits["classes"]
    rest = {key: value for key, value in raw.items() if key != "output"}
    return {**rest, "outputs": [logits], "schema_version": SCHEMA_VERSION}


def from_dict(raw: Any) -> Manifest:
    """A Manifest from plain data of this schema or an older one.

    Raises:
        ManifestError: with the key concerned.
    """
    manifest: Manifest = _build(Manifest, _current(raw), "manifest")
    return manifest


def dumps(manifest: Manifest) -> str:
    """JSON text."""
    known = {f.name for f in fields(Manifest)}
    return json.dumps({k: v for k, v in asdict(manifest).items() if k in known}, indent=1, default=dict) + "\n"


def load(path: Path) -> Manifest:
    """Read a manifest file.

    Raises:
        InputError: missing, unreadable, too large, a link, no regular file; or this machine asks for a signature that
            its folder does not have (:mod:`qhyvit_device.signature`).
        ManifestError: no JSON, or against the schema.
    """
    key = signature.configured()
    signed = None if key is None else signature.signed_files(path.parent, key)
    return _parsed(_content(path, None) if signed is None else _held(signed, path), path)


def _held(signed: Mapping[str, bytes], path: Path) -> bytes:
    """The content of a file among those that are signed.

    Raises:
        InputError: it is none of them.
    """
    if path.name not in signed:
        raise InputError(f"{path}: not among the files that were signed; is this a bundle?")
    return signed[path.name]


def _content(path: Path, folder: int | None) -> bytes:
    """Of a manifest file; ``folder``: see :func:`qhyvit_device.files.open_regular`."""
    try:
        return files.read(path, MAX_BYTES, folder=folder)
    except InputError as error:
        hint = "" if path.exists() else "; is this a bundle folder?"
        raise InputError(f"{error}{hint}") from error


def _parsed(content: bytes, path: Path) -> Manifest:
    if len(content) > MAX_BYTES:
        raise InputError(f"{path}: a file of more than {MAX_BYTES >> 20} MB is refused")
    try:
        return from_dict(json.loads(content.decode()))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not text") from error
    except (ValueError, RecursionError) as error:  # ValueError: a number of too many digits as well
        raise ManifestError(f"{path}: not JSON: {error}") from error


def sha256(path: Path) -> str:
    """Checksum of a file.

    Raises:
        InputError: missing, a link, no regular file, too large, or unreadable.
    """
    return hashlib.sha256(files.read(path, MAX_FILE)).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was read: these very bytes have the checksums of its manifest.

    Args:
        folder, manifest: where it lies, and what it says.
        files: content of model, labels and test image by name.
    """

    folder: Path
    manifest: Manifest
    files: Mapping[str, bytes]


def read_bundle(folder: Path, *, signed: bool = True) -> Bundle:
    """Read every file of a bundle once, and check its checksum.

    Args:
        signed: where this machine asks for signatures, look at nothing of the bundle before its own is found right.

    Raises:
        InputError: a file is missing, a link, no regular file, too large, or not the one that the bundle was made with;
            or see :func:`qhyvit_device.signature.signed_files`.
        ManifestError: see :func:`load`.
    """
    key = signature.configured() if signed else None
    while True:
        try:
            handle = os.open(folder, FOLDER_FLAGS)
        except (OSError, ValueError):
            return _read_bundle(folder, None, key)  # says what is wrong
        try:
            return _read_bundle(folder, handle, key)
        except InputError:
            if _is_still(folder, handle):  # else it was updated, and the old one is being removed
                raise
        finally:
            os.close(handle)


def _is_still(folder: Path, handle: int) -> bool:
    """Whether a name means the folder that is open."""
    try:
        return os.path.samestat(os.stat(folder), os.fstat(handle))
    except OSError:
        return True


def _read_bundle(folder: Path, handle: int | None, key: signature.PublicKey | None) -> Bundle:
    held = None if key is None else signature.signed_files(folder, key, handle)
    path = folder / FILE_NAME
    manifest = _parsed(_content(path, handle) if held is None else _held(held, path), path)
    found = {}
    for name, expected in manifest.checksums.items():
        path = folder / name
        content = files.read(path, MAX_FILE, folder=handle) if held is None else _held(held, path)
        if hashlib.sha256(content).hexdigest() != expected:
            raise InputError(f"{path}: checksum differs, the file was damaged or replaced; copy it again")
        if name in manifest.needed:
            found[name] = content
    return Bundle(folder, manifest, found)
