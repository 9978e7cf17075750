"""Pictures whose pixels are numbers of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from qhyvit.errors import InputError


def read_label_map(path: Path) -> np.ndarray:
    """Classes [height, width]: of gray pictures their values, of those with a palette its places, of masks 0 and 1.

    Raises:
        InputError: it is no picture, or one in colours.
    """
    try:
        with Image.open(path) as picture:
            is_gray = picture.mode in ("1", "L", "P") or picture.mode.startswith("I")
            found = np.asarray(picture if is_gray else picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the label map {path}: {error}") from error
    if found.ndim == 3:
        if (found != found[..., :1]).any():
            raise InputError(f"the label map {path} has colours; its pixels must be numbers of classes")
        found = found[..., 0]
    return found.astype(np.int64)
