"""Reading a picture within bounds: which formats, how much memory, and which pixels are meant."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from qhyvit_device.errors import InputError
from qhyvit_device.files import open_regular

FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM")  # Pillow knows others, and starts programs for some of them
BACKGROUND = (255, 255, 255)  # what shows where a picture is transparent: white, as on a page
MOST_ASPECT = 1000  # a side to the other
DRAFT_BYTES = 48 << 20  # of decoding: a JPEG that takes more is decoded at a half, a quarter or an eighth
MOST_BYTES = 1 << 30  # of decoding: what takes more is refused; a board's limit is DRAFT_BYTES
MOST_READ = 1 << 20  # bytes that a decoder asks for at once
STRIP = 1 << 18  # pixels that are converted at once
BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "LA": 4}
# Of decoding, besides the picture's own, a pixel: measured with Pillow 12, whose decoders these are by name.
DECODER_BYTES = {"raw": 0, "zip": 0, "jpeg": 0, "ppm": 8, "ppm_plain": 48, "bmp_rle": 8, "webp": 14}
ORIENTATION = 0x0112  # EXIF
# orientation -> whether the axes are swapped, and whether the file's columns and rows are read from their end
TURNS = {
    1: (False, False, False), 2: (False, True, False), 3: (False, True, True), 4: (False, False, True),
    5: (True, False, False), 6: (True, False, True), 7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
METHODS = {
    TURNS[2]: Image.Transpose.FLIP_LEFT_RIGHT, TURNS[3]: Image.Transpose.ROTATE_180,
    TURNS[4]: Image.Transpose.FLIP_TOP_BOTTOM, TURNS[5]: Image.Transpose.TRANSPOSE,
    TURNS[6]: Image.Transpose.ROTATE_270, TURNS[7]: Image.Transpose.TRANSVERSE, TURNS[8]: Image.Transpose.ROTATE_90,
}  # fmt: skip

# Damaged metadata are no part of the picture. For good: a context that ends would end for all threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _Metered:
    """A file whose metadata, which Pillow keeps, are counted and bounded. Pixels are read in small pieces."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most
        self.metadata = 0
        self.pixels = False  # whether they are being read

    def read(self, size: int | None = -1) -> bytes:
        """As a file does.

        Raises:
            InputError: more metadata than they may be.
        """
        room = MOST_READ if self.pixels else self._most - self.metadata
        wanted = room + 1 if size is None or size < 0 else min(size, room + 1)
        data = self._stream.read(wanted)
        if len(data) > room:
            raise InputError(f"its metadata take more than {self._most >> 20} MB")
        self.metadata += 0 if self.pixels else len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _many_scans(stream: _Metered, components: int) -> bool:
    """Whether a JPEG is decoded from several scans, for which its decoder keeps all coefficients; True if unclear."""
    stream.seek(2)
    while len(head := stream.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker in (0xC2, 0xC6, 0xCA, 0xCE):  # progressive
            return True
        if marker == 0xDA:  # a scan: the count of its components comes first
            return stream.read(1) != bytes([components])
        stream.seek(length - 2, 1)
    return True


def _coefficients(image: Any, stream: _Metered) -> int:
    """Bytes of a JPEG's coefficients that its decoder keeps."""
    if not _many_scans(stream, len(image.layer)):
        return 0
    widest, tallest = (max(layer[i] for layer in image.layer) for i in (1, 2))
    samples = sum(layer[1] * layer[2] for layer in image.layer) / (widest * tallest)
    return int(2 * samples * image.width * image.height)


def _fit(image: Any, stream: _Metered, most: int) -> None:
    """Let a large JPEG be decoded smaller; refuse what takes too much memory all the same."""
    jpeg = image.format in ("JPEG", "MPO")
    decoder = "webp" if image.format == "WEBP" else image.tile[0][0] if image.tile else ""
    own = BYTES_PER_PIXEL.get(image.mode, 4) + DECODER_BYTES.get(decoder, max(DECODER_BYTES.values()))
    width, height = image.size
    kept = 4 * stream.metadata  # with the copies that Pillow makes
    kept += _coefficients(image, stream) if jpeg else 0
    needed = kept + own * width * height
    for scale in (2, 4, 8):
        if not jpeg or needed <= DRAFT_BYTES:
            break
        needed = kept + own * -(-width // scale) * -(-height // scale)
        if needed <= DRAFT_BYTES or scale == 8:
            image.draft(None, (max(width // scale, 1), max(height // scale, 1)))
            needed = kept + own * image.width * image.height
    if needed > most:
        raise InputError(
            f"refused, {width}x{height} pixels take {needed >> 20} MiB to decode, more than {most >> 20}: "
            "too many pixels; make it smaller" + ("" if jpeg else ", or a JPEG")
        )


def _check_shape(width: int, height: int) -> None:
    if min(width, height) < 1:
        raise InputError(f"an image of {width}x{height} has no pixels")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise InputError(f"{width}x{height} pixels are too narrow for a picture")


def _decode(source: IO[bytes], most: int) -> Image.Image:
    stream = _Metered(source, most // 6)
    opened: Any = Image.open(stream, formats=FORMATS)
    with opened as image:
        _check_shape(*image.size)
        _fit(image, stream, most)
        end: Callable[[], None] = image.load_end

        def load_end() -> None:  # metadata may follow the pixels
            stream.pixels = False
            end()

        stream.pixels, image.load_end = True, load_end
        try:
            image.load()
        finally:
            del image.load_end  # it refers to the image: only the garbage collector would free both
        found: Image.Image = image
        return found


def decoded(source: Path | str | IO[bytes], most: int = MOST_BYTES) -> Image.Image:
    """The picture of a file as it is stored there: of any mode, not turned yet.

    A JPEG whose decoding takes more than ``DRAFT_BYTES`` (12 million pixels, 7 of a progressive one) is decoded at a
    half, a quarter or an eighth of its size.

    Args:
        source: a path, or a file that can be sought in.
        most: bytes that decoding may take.

    Raises:
        InputError: missing, no image, no regular file, truncated, or too large.
    """
    if not isinstance(source, str | Path) and not hasattr(source, "read"):
        got = type(source).__name__
        raise InputError(f"a {got} is no picture: give a path, a file or a PIL image (of an array: Image.fromarray)")
    name = _name(source)
    try:
        if not isinstance(source, str | Path):
            return _decode(source, most)
        with open_regular(source, links=True) as stream:
            return _decode(stream, most)
    except InputError as error:
        said = str(error)
        raise InputError(said if name in said else f"{name}: {said}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name}: not an image that can be read (JPEG, PNG, BMP, WebP, PPM)") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: refused, the image has too many pixels") from error
    except Exception as error:  # decoders raise anything on damaged files: OSError, SyntaxError, struct.error, ...
        raise InputError(f"{name}: cannot read image: {reason(error)}") from error


def _name(source: object) -> str:
    """Of a path or an open file; temporary files have numbers for names."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", None)
    return str(name) if isinstance(name, str | Path) else "image"


def reason(error: Exception) -> str:
    """What an exception says, in one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said).splitlines()[0]


class Upright:
    """The picture that an image of any mode means, made a few rows at a time: a copy of all may be too large.

    It is turned as its EXIF says. Transparent parts show white (``BACKGROUND``). Gray of 16 bits (modes I and I;16)
    covers 0 to 65535 and is rounded to 8 bits; mode F covers 0 to 255.

    Args:
        image: of any mode.
        transposed: exchange rows and columns.
        mode: "RGB", or "L" for gray.

    Attributes:
        width, height: pixels, after turning.

    Raises:
        InputError: no pixels, too narrow, or values whose meaning is not known.
    """

    def __init__(self, image: Image.Image, *, transposed: bool = False, mode: str = "RGB") -> None:
        _check_shape(*image.size)
        self._image, self.mode = image, mode
        swap, *flips = TURNS[_orientation(image)]
        self._flips = flips[0], flips[1]
        self._swap = swap != transposed
        self.width, self.height = image.size[::-1] if self._swap else image.size
        if _is_gray(image):
            self._check_gray()

    def rows(self, first: int, count: int) -> Image.Image:
        """Rows ``first`` to ``first + count``, in ``mode``."""
        image = self._crop(first, count)
        try:
            found = self._turned(_gray_to_rgb(image) if _is_gray(image) else _to_rgb(image))
            return found if found.mode == self.mode else found.convert(self.mode)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"an image of mode {image.mode} cannot be read: {reason(error)}") from error

    def strips(self) -> Iterator[tuple[int, Image.Image]]:
        """All rows in order, some at a time, with the number of the first."""
        count = max(STRIP // self.width, 1)
        for first in range(0, self.height, count):
            yield first, self.rows(first, min(count, self.height - first))

    def _crop(self, first: int, count: int) -> Image.Image:
        """The part of the stored image that these rows come from."""
        ranges = [[0, self._image.width], [0, self._image.height]]
        ranges[0 if self._swap else 1] = [first, first + count]
        for axis, flipped in enumerate(self._flips):
            if flipped:
                size, (low, high) = self._image.size[axis], ranges[axis]
                ranges[axis] = [size - high, size - low]
        (left, right), (top, bottom) = ranges
        return self._image.crop((left, top, right, bottom))

    def _turned(self, image: Image.Image) -> Image.Image:
        method = METHODS.get((self._swap, *self._flips))
        return image if method is None else image.transpose(method)

    def _check_gray(self) -> None:
        """Refuse values outside of what the mode covers."""
        count, mode = max(STRIP // self.width, 1), self._image.mode
        parts = (np.asarray(self._crop(i, min(count, self.height - i))) for i in range(0, self.height, count))
        limits = np.array([(part.min(), part.max()) for part in parts], np.float64)
        least, largest = limits[:, 0].min(), limits[:, 1].max()
        most = _white(mode)
        if not (least >= 0 and largest <= most):
            raise InputError(f"gray values of mode {mode} are {least:g} to {largest:g}, not 0..{most}")
        if mode == "F" and 0 < largest <= 1:
            raise InputError("gray values of mode F are 0..1, not 0..255: multiply them by 255")


def _orientation(image: Image.Image) -> int:
    """What EXIF says, 1 (as it lies) where it says nothing that can be understood."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
        return found if found in TURNS else 1
    except Exception:  # damaged metadata raise anything
        return 1


def _is_gray(image: Image.Image) -> bool:
    """Whether its values are gray that is wider than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _white(mode: str) -> int:
    return 255 if mode == "F" else 65535


def _gray_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    gray = np.rint(values * (255 / _white(image.mode))).astype(np.uint8)
    gray[values == image.info.get("transparency", -1)] = BACKGROUND[0]
    return Image.fromarray(gray).convert("RGB")


def _to_rgb(image: Image.Image) -> Image.Image:
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        over = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), over).convert("RGB")
    return image.convert("RGB")


def as_rgb(image: Image.Image) -> Image.Image:
    """The whole RGB picture that an image of any mode means, see :class:`Upright`; without metadata.

    Raises:
        InputError: see :class:`Upright`.
    """
    upright = Upright(image)
    found = upright.rows(0, upright.height)
    found.info.clear()  # nothing is done twice
    return found


def load_image(source: Path | str | IO[bytes]) -> Image.Image:
    """The RGB picture of a file, see :func:`as_rgb`.

    Raises:
        InputError: see :func:`decoded` and :func:`as_rgb`.
    """
    image = decoded(source)
    with named(source):
        return as_rgb(image)


@contextlib.contextmanager
def named(source: object) -> Iterator[None]:
    """Put the name of a file before what is said of its picture.

    Raises:
        InputError: what the block raises.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{_name(source)}: {error}") from error
