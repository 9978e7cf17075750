"""A picture with its map laid over it, and a legend below."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from qhyvit_device.pictures import Upright
from qhyvit_device.preprocess import Preprocess, to_pixels
from qhyvit_device.results import ClassShare, SegmentationMap
from qhyvit_device.terminal import shown

LEAST_SIDE = 512  # pixels of the longer side
MOST_RESIZE = 8192  # see Preprocess
GOLDEN = 0.61803398875  # hues in steps of it lie far apart, however many there are
MOST_NAMED, MOST_LETTERS = 20, 40  # classes of a legend, characters of a label
ROW, MARGIN, LEAST_WIDTH = 18, 6, 220  # of a legend, pixels


def view(image: Image.Image, height: int, width: int, how: Preprocess) -> np.ndarray:
    """What a model with an input of ``height`` x ``width`` sees of a picture, [H, W, 3] uint8, large enough to look at.

    A squashed picture has its own aspect again.

    Raises:
        InputError: see :class:`qhyvit_device.pictures.Upright`.
    """
    if how.mode == "squash":
        picture, side = Upright(image), max(height, width, LEAST_SIDE)
        longest = max(picture.width, picture.height)
        high, wide = (max(round(side * n / longest), 1) for n in (picture.height, picture.width))
        return to_pixels(image, high, wide, how)
    factor = min(-(-LEAST_SIDE // max(height, width)), MOST_RESIZE // how.resize)
    return to_pixels(image, factor * height, factor * width, replace(how, resize=factor * how.resize))


def canvas(array: np.ndarray) -> np.ndarray:
    """The mean of the channels of an input that is no picture, [H, W, C], as gray, [H, W, 3] uint8, large enough."""
    values = array.astype(np.float64).mean(axis=2)
    low, high = (0.0, 255.0) if array.dtype == np.uint8 else (values.min(), values.max())
    gray = np.rint(255 * (values - low) / max(high - low, 1e-30)).astype(np.uint8)
    factor = -(-LEAST_SIDE // max(gray.shape))
    return np.repeat(gray.repeat(factor, 0).repeat(factor, 1)[..., None], 3, axis=2)


def palette(count: int) -> np.ndarray:
    """A colour for each of so many classes, [count, 3] uint8."""
    colours = [colorsys.hsv_to_rgb(i * GOLDEN % 1, (0.9, 0.6)[i // 2 % 2], (1.0, 0.7)[i % 2]) for i in range(count)]
    found: np.ndarray = np.rint(255 * np.array(colours)).astype(np.uint8)
    return found


def drawn(pixels: np.ndarray, found: SegmentationMap, shares: Sequence[ClassShare]) -> Image.Image:
    """Half picture, half colours of the map, and below the names of ``shares`` with their colours.

    Args:
        pixels: [H, W, 3] uint8.
        found: a map of H x W.
        shares: classes for the legend.
    """
    colours = palette(len(found.labels))
    mixed = ((pixels.astype(np.uint16) + colours[found.classes]) // 2).astype(np.uint8)
    rows = [(f"{_label(s.label)}  {100 * s.share:.1f} %", colours[s.index]) for s in shares[:MOST_NAMED]]
    if len(shares) > MOST_NAMED:
        rows.append((f"and {len(shares) - MOST_NAMED} more", None))
    height, width = pixels.shape[:2]
    font = ImageFont.load_default()
    left = MARGIN + ROW + MARGIN
    wide = int(max((font.getlength(text) for text, _ in rows), default=0)) + left + MARGIN
    page = Image.new("RGB", (max(width, wide, LEAST_WIDTH), height + 2 * MARGIN + ROW * len(rows)), "white")
    page.paste(Image.fromarray(mixed), (0, 0))
    draw = ImageDraw.Draw(page)
    for i, (text, colour) in enumerate(rows):
        top = height + MARGIN + ROW * i
        if colour is not None:
            draw.rectangle((MARGIN, top + 2, MARGIN + ROW, top + ROW - 4), tuple(colour.tolist()))
        draw.text((left, top + 3), text, "black", font)
    return page


def _label(text: str) -> str:
    """As much of a label as the legend has room for; Pillow's own font without FreeType knows Latin-1 alone."""
    found = shown(text)
    found = found if len(found) <= MOST_LETTERS else found[: MOST_LETTERS - 1] + "~"
    return found.encode("latin-1", "replace").decode("latin-1")
