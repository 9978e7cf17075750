"""From an image file to the model's input: resize, crop, normalize, quantize. One code for host and device."""

from __future__ import annotations

import json
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


def load_image(source: Path | IO[bytes]) -> Image.Image:
    """An RGB image, turned as its EXIF says.

    Raises:
        InputError: missing, no image, truncated, or too large to be one.
    """
    name = source if isinstance(source, Path) else getattr(source, "name", "image")
    try:
        with Image.open(source) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image that can be read (JPEG, PNG, BMP, WebP, PPM)") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: refused, the image has too many pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"{name}: cannot read image: {reason}") from error


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


def images_in(folder: Path) -> list[Path]:
    """Image files below a folder, sorted.

    Raises:
        InputError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"image folder {folder} does not exist")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
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
        raw: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    allowed = {"mode": str, "resize": int, "interpolation": str}
    if not isinstance(raw, dict) or not all(k in allowed and isinstance(v, allowed[k]) for k, v in raw.items()):
        raise InputError(f"{path}: must hold only {', '.join(allowed)}")
    return replace(default, **raw)
