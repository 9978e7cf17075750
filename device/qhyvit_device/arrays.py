"""Inputs that are arrays: ``.npy`` and ``.npz`` files, and numpy's own. Untrusted: bounds come before memory.

uint8 values are pixels, floats are what the network itself takes. Nothing is resized.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from qhyvit_device.errors import InputError
from qhyvit_device.files import open_regular
from qhyvit_device.pictures import named, reason

SUFFIXES = (".npy", ".npz")
MAGIC = {b"\x93NUMPY": "npy", b"PK\x03\x04": "npz"}
MOST_CHANNELS = 16
MOST_SIDE = 4096
MOST_ELEMENTS = MOST_SIDE * MOST_SIDE * MOST_CHANNELS
MOST_HEADER = 4096  # bytes of a .npy file before its values
Shape = tuple[int, int, int]  # height, width, channels
Array = NDArray[Any]  # [H, W, C] uint8 or float32


def is_array_file(source: Path | str | IO[bytes]) -> bool:
    """Whether a file holds an array: a path by its name, an open file by its first bytes."""
    if isinstance(source, str | Path):
        return str(source).lower().endswith(SUFFIXES)
    place = source.tell()
    head = source.read(6)
    source.seek(place)
    return any(head.startswith(magic) for magic in MAGIC)


def read_array(source: Path | str | IO[bytes], shape: Shape | None = None) -> Array:
    """The array of a ``.npy`` file, or the only one of a ``.npz`` file: [H, W, C], uint8 or float32.

    Args:
        source: a path, or a file that can be sought in.
        shape: what the model takes; None: any, as large as an input may be.

    Raises:
        InputError: missing, no regular file, damaged, Python objects, or see :func:`checked`.
    """
    with named(source):
        try:
            if not isinstance(source, str | Path):
                return _read(source, shape)
            with open_regular(source, links=True) as stream:
                return _read(stream, shape)
        except InputError:
            raise
        except Exception as error:  # zipfile and numpy raise anything on damaged files
            raise InputError(f"cannot read array: {reason(error)}") from error


def _read(stream: IO[bytes], shape: Shape | None) -> Array:
    start = stream.tell()
    head = stream.read(6)
    size = stream.seek(0, 2) - start
    stream.seek(start)
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), None)
    if kind is None:
        raise InputError("not a .npy or .npz file")
    if kind == "npy":
        return _npy(stream, shape)
    most = 8 * (MOST_ELEMENTS if shape is None else math.prod(shape)) + (1 << 20)
    if size > most:  # the list of its members is read at once
        raise InputError(f"refused, more than {most >> 20} MB are no array of one input")
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise InputError(f"holds {len(members)} arrays, need one")
        if members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError("compressed in a way that numpy does not write")
        with archive.open(members[0]) as member:
            return _npy(member, shape)


def _npy(stream: IO[bytes], shape: Shape | None) -> Array:
    if np.lib.format.read_magic(stream) != (1, 0):  # others are for structures, and may have headers of gigabytes
        raise InputError("not in version 1.0 of numpy's format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about Python 2
        sides, by_columns, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=MOST_HEADER)
    _check_type(dtype)
    _check_sides(sides, shape)
    wanted = math.prod(sides) * dtype.itemsize
    content = stream.read(wanted)
    if len(content) < wanted:
        raise InputError(f"truncated: {len(content)} of {wanted} bytes")
    return checked(np.frombuffer(content, dtype).reshape(sides, order="F" if by_columns else "C"), shape)


def checked(array: Array, shape: Shape | None = None) -> Array:
    """An array as an input: [H, W, C], uint8 as it is, floats as float32.

    Args:
        array: [H, W, C] or [1, H, W, C]; [H, W] where there is one channel.
        shape: what the model takes; None: any.

    Raises:
        InputError: another shape, another type, or values that are not finite.
    """
    _check_type(array.dtype)
    _check_sides(array.shape, shape)
    found = array.reshape((*array.shape, 1) if array.ndim == 2 else array.shape[-3:])
    if found.dtype == np.uint8:
        return np.ascontiguousarray(found)
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(found, np.float32)
    if not np.isfinite(found).all():
        raise InputError("an array with values that are not finite (NaN or infinite)")
    return found


def _check_type(dtype: np.dtype[Any]) -> None:
    if dtype != np.uint8 and (dtype.kind != "f" or dtype.itemsize > 8):
        raise InputError(
            f"an array of {str(dtype)[:40]}; give pixels as uint8, or the values that the network takes as float32"
        )


def _check_sides(sides: tuple[int, ...], shape: Shape | None) -> None:
    """Refuse what is no input, before anything of it is read."""
    inner = (*sides, 1) if len(sides) == 2 else sides[1:] if len(sides) == 4 and sides[0] == 1 else sides
    if shape is None:
        if len(inner) != 3 or not all(1 <= side <= MOST_SIDE for side in inner):
            raise InputError(f"an array of {list(sides)[:8]}; an input is [height, width, channels]")
        return
    if inner == shape:
        return
    hint = "; arrays are not resized, pictures are (Image.fromarray)"
    if sorted(inner) == sorted(shape) and inner == (shape[2], *shape[:2]):
        hint = "; channels come last: transpose it"
    raise InputError(f"an array of {list(sides)[:8]}, the model takes {list(shape)}{hint}")
