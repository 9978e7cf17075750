"""From an image file to the model's input: resize, crop, normalize, quantize. One code for host and device."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from qhyvit_device.errors import InputError

MODES = ("crop", "squash")
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm")
FOLDER_FILE = "preprocess.json"
BACKGROUND = (255, 255, 255)  # what shows where a picture is transparent: white, as on a page
WORDS = {str: "a text", int: "a whole number"}
MOST_ASPECT = 1000  # a side to the other; to resize a narrower one to its input takes gigabytes


@dataclass(frozen=True)
class Preprocess:
    """How pixels become input values.

    Args:
        mode: "crop": shortest side to ``resize``, then the centre of the input's size; "squash": the whole image to
            the input's size, whatever its aspect.
        resize: pixels of the shortest side in mode "crop".
        interpolation: nearest, bilinear, bicubic or lanczos.
        mean, std: of values in 0..1, a channel each: (value - mean) / std.
    """

    mode: str
    resize: int
    interpolation: str
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"resize mode {self.mode!r} is unknown; known: {', '.join(MODES)}")
        if self.interpolation not in FILTERS:
            raise InputError(f"interpolation {self.interpolation!r} is unknown; known: {', '.join(FILTERS)}")
        good = 1 <= self.resize <= 8192 and len(self.mean) == len(self.std) == 3 and all(s > 0 for s in self.std)
        if not good:
            raise InputError("preprocess: resize, mean or std is out of bounds")


def load_image(source: Path | str | IO[bytes]) -> Image.Image:
    """The picture of a file, see :func:`as_rgb`.

    Raises:
        InputError: missing, no image, truncated, too large to be one, or see :func:`as_rgb`.
    """
    if not isinstance(source, str | Path) and not hasattr(source, "read"):
        got = type(source).__name__
        raise InputError(f"a {got} is no picture: give a path, a file or a PIL image (of an array: Image.fromarray)")
    name = source if isinstance(source, str | Path) else getattr(source, "name", "image")
    try:
        with warnings.catch_warnings(), Image.open(source) as image:
            warnings.simplefilter("ignore")  # of damaged metadata, which is no part of the picture
            image.load()
            return as_rgb(image)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image that can be read (JPEG, PNG, BMP, WebP, PPM)") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: refused, the image has too many pixels") from error
    except Exception as error:  # decoders raise anything on damaged files: OSError, SyntaxError, struct.error, ...
        raise InputError(f"{name}: cannot read image: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What an exception says, in one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said).splitlines()[0]


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB that is meant by an image of any mode: in memory the same as in a file.

    It is turned as its EXIF says. Transparent parts show white (``BACKGROUND``). Gray of 16 bits (modes I and I;16)
    covers 0 to 65535 and is rounded to 8 bits; mode F covers 0 to 255.

    Raises:
        InputError: no pixels, too narrow, or values whose meaning is not known.
    """
    if min(image.size) < 1:
        raise InputError(f"an image of {image.width}x{image.height} has no pixels")
    if max(image.size) > MOST_ASPECT * min(image.size):
        raise InputError(f"{image.width}x{image.height} pixels are too narrow for a picture")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            return _from_gray(image)
        if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
            over = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), over).convert("RGB")
        return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise InputError(f"an image of mode {image.mode} cannot be read: {_reason(error)}") from error


def _from_gray(image: Image.Image) -> Image.Image:
    """RGB of gray values that are wider than 8 bits."""
    values = np.asarray(image).astype(np.float64)
    most = 255 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= most):
        raise InputError(f"gray values of mode {image.mode} are {values.min():g} to {values.max():g}, not 0..{most}")
    if image.mode == "F" and 0 < values.max() <= 1:
        raise InputError("gray values of mode F are 0..1, not 0..255: multiply them by 255")
    gray = np.rint(values * (255 / most)).astype(np.uint8)
    gray[values == image.info.get("transparency", -1)] = BACKGROUND[0]
    return Image.fromarray(gray).convert("RGB")


def to_pixels(image: Image.Image, height: int, width: int, how: Preprocess) -> np.ndarray:
    """[H, W, 3] uint8 of the input's size, as timm's evaluation transform makes it in mode "crop"."""
    resample = FILTERS[how.interpolation]
    if how.mode == "squash":
        return np.asarray(image.resize((width, height), resample))
    short, long = min(image.size), max(image.size)
    scaled = int(how.resize * long / short)  # torchvision rounds the long side down
    size = (how.resize, scaled) if image.width <= image.height else (scaled, how.resize)
    if size != image.size:
        image = image.resize(size, resample)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return np.asarray(image.crop((left, top, left + width, top + height)))


def normalize(pixels: np.ndarray, how: Preprocess) -> np.ndarray:
    """[.., 3] uint8 -> float32 input values."""
    values = (np.arange(256)[:, None] / 255.0 - np.asarray(how.mean)) / np.asarray(how.std)  # [256, 3] float64
    return _look_up(values.astype(np.float32), pixels)


def quantize(pixels: np.ndarray, how: Preprocess, scale: float, zero_point: int, dtype: str) -> np.ndarray:
    """[.., 3] uint8 -> input codes by a table of 256 x 3 entries: no float touches the pixels.

    Code = clip(round_half_even(value / scale) + zero_point), value as :func:`normalize` but in float64.
    """
    limits = np.iinfo(dtype)
    values = (np.arange(256)[:, None] / 255.0 - np.asarray(how.mean)) / np.asarray(how.std)
    table = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return _look_up(table, pixels)


def _look_up(table: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """table[pixel value, channel] for every pixel."""
    return np.stack([table[pixels[..., c], c] for c in range(3)], axis=-1)


def is_image_name(path: Path) -> bool:
    """Whether a file is an image by its name, and neither it nor a folder on the way is hidden."""
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def images_in(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; hidden ones are left out, as are those of hidden folders.

    Raises:
        InputError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"image folder {folder} does not exist")
    found = sorted(p for p in folder.rglob("*") if is_image_name(p.relative_to(folder)) and p.is_file())
    if not found:
        raise InputError(f"image folder {folder} holds no images ({', '.join(SUFFIXES)})")
    return found


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
