"""From an image or array file to the model's input: resize, crop, normalize, quantize. One code for host and device."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from qhyvit_device.arrays import MOST_CHANNELS, Array, Shape, checked, is_array_file, read_array
from qhyvit_device.arrays import SUFFIXES as ARRAY_SUFFIXES
from qhyvit_device.errors import InputError
from qhyvit_device.pictures import MOST_BYTES, Upright, decoded, named
from qhyvit_device.pictures import as_rgb as as_rgb
from qhyvit_device.pictures import load_image as load_image
from qhyvit_device.pictures import reason as _reason

MODES = ("crop", "squash")
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
COLOURS = {1: "L", 3: "RGB"}  # Pillow's mode of a picture with so many channels
FOLDER_FILE = "preprocess.json"
WORDS = {str: "a text", int: "a whole number"}
MOST_BETWEEN = 1 << 21  # pixels of a picture whose columns are scaled and whose rows are not
MOST_SCALED = 8192  # columns or rows that are made of a whole picture, before the window is cut out
Pair = tuple[int, int]


@dataclass(frozen=True)
class Preprocess:
    """How pixels become input values.

    Args:
        mode: "crop": as small as covers the input, enlarged by ``resize``, then the centre of the input's size;
            "squash": the whole image to the input's size, whatever its aspect.
        resize: in mode "crop" the picture covers the input scaled to this shortest side, pixels; of a square input it
            is the picture's own shortest side.
        interpolation: nearest, bilinear, bicubic or lanczos.
        mean, std: of values in 0..1, a channel each: (value - mean) / std. There are as many as the input has channels.
    """

    mode: str
    resize: int
    interpolation: str
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"resize mode {self.mode!r} is unknown; known: {', '.join(MODES)}")
        if self.interpolation not in FILTERS:
            raise InputError(f"interpolation {self.interpolation!r} is unknown; known: {', '.join(FILTERS)}")
        good = 1 <= self.resize <= 8192 and 1 <= len(self.mean) == len(self.std) <= MOST_CHANNELS
        if not (good and all(abs(m) <= 1e6 for m in self.mean) and all(1e-6 <= s <= 1e6 for s in self.std)):
            raise InputError("preprocess: resize, mean or std is out of bounds")

    @property
    def channels(self) -> int:
        """Of the input."""
        return len(self.mean)


def opened(source: Path | str | IO[bytes], shape: Shape | None, most: int = MOST_BYTES) -> Image.Image | Array:
    """The picture of a file as it is stored there, or the array of a ``.npy`` or ``.npz`` file.

    Args:
        source: a path, or a file that can be sought in.
        shape: what the model takes; None: any.
        most: bytes that decoding a picture may take.

    Raises:
        InputError: see :func:`qhyvit_device.pictures.decoded` and :func:`qhyvit_device.arrays.read_array`.
    """
    if (isinstance(source, str | Path) or hasattr(source, "seek")) and is_array_file(source):
        return read_array(source, shape)
    return decoded(source, most)


def fitted(given: Image.Image | Array, shape: Shape, how: Preprocess) -> Array:
    """What :func:`normalize` and :func:`quantize` take of a picture or an array: [H, W, C].

    Raises:
        InputError: see :func:`to_pixels` and :func:`qhyvit_device.arrays.checked`.
    """
    if isinstance(given, Image.Image):
        return to_pixels(given, shape[0], shape[1], how)
    return checked(np.asarray(given), shape)


def load_input(source: Path | str, shape: Shape, how: Preprocess) -> Array:
    """The same of a file.

    Raises:
        InputError: see :func:`opened` and :func:`fitted`; with the file's name.
    """
    found = opened(source, shape)
    if not isinstance(found, Image.Image):
        return found
    with named(source):
        return fitted(found, shape, how)


def to_pixels(image: Image.Image, height: int, width: int, how: Preprocess) -> np.ndarray:
    """[H, W, C] uint8 of the input's size, as timm's evaluation transform makes it in mode "crop".

    Three channels are red, green and blue, one is gray (Pillow's "L").

    Args:
        image: of any mode, see :class:`qhyvit_device.pictures.Upright`.
        height: of the input, pixels.
        width: of the input, pixels.
        how: mode, resize and interpolation.

    Raises:
        InputError: another count of channels, or see :class:`qhyvit_device.pictures.Upright`.
    """
    mode = COLOURS.get(how.channels)
    if mode is None:
        raise InputError(f"a picture cannot be the input of {how.channels} channels; give arrays (.npy)")
    picture = Upright(image, mode=mode)
    if how.mode == "squash":
        scaled, start = (width, height), (0, 0)
    else:
        short = min(height, width)
        rows, columns = round(how.resize * height / short), round(how.resize * width / short)
        if picture.width * rows <= picture.height * columns:  # torchvision rounds the other side down
            scaled = columns, int(columns * picture.height / picture.width)
        else:
            scaled = int(rows * picture.width / picture.height), rows
        start = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
    resample = FILTERS[how.interpolation]
    if width * picture.height <= max(MOST_BETWEEN, height * picture.width):
        found = _window(picture, scaled, start, (width, height), resample)
        return np.asarray(found).reshape(height, width, how.channels)
    # so tall that scaling its columns first, as Pillow does, would take much memory: rows first
    picture = Upright(image, transposed=True, mode=mode)
    found = _window(picture, scaled[::-1], start[::-1], (height, width), resample)
    return np.asarray(found.transpose(Image.Transpose.TRANSPOSE)).reshape(height, width, how.channels)


def _window(picture: Upright, scaled: Pair, start: Pair, size: Pair, resample: Image.Resampling) -> Image.Image:
    """Part of a picture that is scaled to ``scaled``: ``size`` pixels from ``start`` on, [columns, rows].

    What lies outside is black. Columns are scaled before rows, each to 8 bits, like in Pillow's own resize, but a strip
    of rows at a time, of which only the window's columns are kept.
    """
    columns = Image.new(picture.mode, (size[0], picture.height))
    for first, strip in picture.strips():
        columns.paste(_along(0, strip, scaled[0], start[0], size[0], resample), (0, first))
    return _along(1, columns, scaled[1], start[1], size[1], resample)


def _along(
    axis: int, image: Image.Image, total: int, first: int, count: int, resample: Image.Resampling
) -> Image.Image:
    """``count`` columns (axis 0) or rows (1) from ``first`` on, of an image that is scaled to ``total`` of them."""
    size, box = list(image.size), [0.0, 0.0, *image.size]
    if total > MOST_SCALED:  # only the window is made, whose weights may differ in their last bit
        step = image.size[axis] / total
        size[axis], box[axis], box[axis + 2] = count, first * step, (first + count) * step
        return image.resize((size[0], size[1]), resample, (box[0], box[1], box[2], box[3]))
    size[axis] = total
    image = image if image.size[axis] == total else image.resize((size[0], size[1]), resample)
    corners = [0, 0, *image.size]
    corners[axis], corners[axis + 2] = first, first + count
    return image.crop((corners[0], corners[1], corners[2], corners[3]))


def normalize(given: Array, how: Preprocess) -> Array:
    """[.., C] uint8 pixels -> float32 input values; floats are these already."""
    if given.dtype != np.uint8:
        return given.astype(np.float32, copy=False)
    return _look_up(_values(how).astype(np.float32), given)


def quantize(given: Array, how: Preprocess, scale: float, zero_point: int, dtype: str) -> Array:
    """[.., C] uint8 pixels -> input codes by a table of 256 x C entries: no float touches the pixels.

    Code = clip(round_half_even(value / scale) + zero_point), value as :func:`normalize` but in float64. Floats are
    values already.
    """
    limits = np.iinfo(dtype)
    pixels = given.dtype == np.uint8
    values = _values(how) if pixels else given.astype(np.float64)
    codes = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return _look_up(codes, given) if pixels else codes


def _values(how: Preprocess) -> Array:
    """Input value of every pixel value, [256, C] float64."""
    found: Array = (np.arange(256)[:, None] / 255.0 - np.asarray(how.mean)) / np.asarray(how.std)
    return found


def _look_up(table: Array, pixels: Array) -> Array:
    """table[pixel value, channel] for every pixel."""
    return np.stack([table[pixels[..., c], c] for c in range(table.shape[1])], axis=-1)


def images_in(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; arrays where there is no image. Hidden files and folders are left out.

    Raises:
        InputError: no such folder, or neither image nor array in it.
    """
    if not folder.is_dir():
        raise InputError(f"image folder {folder} does not exist")
    every = (*SUFFIXES, *ARRAY_SUFFIXES)
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in every and _is_shown(p, folder))
    if not found:
        raise InputError(f"image folder {folder} holds no images ({', '.join(SUFFIXES)}) and no arrays (.npy, .npz)")
    return [p for p in found if p.suffix.lower() in SUFFIXES] or found


def _is_shown(path: Path, folder: Path) -> bool:
    """Whether neither a file nor a folder on the way is hidden."""
    return not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file()


def folder_preprocess(folder: Path, default: Preprocess) -> Preprocess:
    """``default``, changed by a ``preprocess.json`` that lies beside the images (mode, resize, interpolation).

    Raises:
        InputError: the file is no JSON object, or holds other keys.
    """
    path = folder / FOLDER_FILE
    if not path.is_file():
        return default
    try:
        raw: Any = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {_reason(error)}") from error
    allowed = {"mode": str, "resize": int, "interpolation": str}
    if not isinstance(raw, dict) or not all(k in allowed for k in raw):
        raise InputError(f"{path}: must hold only {', '.join(allowed)}")
    for key, value in raw.items():
        if not isinstance(value, allowed[key]) or isinstance(value, bool):
            raise InputError(f"{path}: {key} is {json.dumps(value)}, must be {WORDS[allowed[key]]}")
    try:
        return replace(default, **raw)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
