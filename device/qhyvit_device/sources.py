"""Where images come from besides named files: a folder that is watched, a camera, standard input.

Cameras need a package that the user has: OpenCV for V4L2 devices (USB cameras), picamera2 for a Raspberry Pi's own.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.preprocess import is_image_name, load_image

POLL_SECONDS = 0.25
MOST_STDIN_BYTES = 256 << 20
CAMERAS = ("camera", "picamera2")
Frame = tuple[str, "Image.Image | InputError"]
Stamp = tuple[int, int]


def watch_folder(folder: Path) -> Iterator[Frame]:
    """Images that appear in ``folder``, each once its size has stayed the same from one look to the next; for ever.

    What lies there at the call is left out. One that cannot be read comes as its error.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder to watch")
    return _appearing(folder, {p.name: _stamp(p) for p in folder.iterdir()})


def _appearing(folder: Path, done: dict[str, Stamp]) -> Iterator[Frame]:
    growing: dict[str, Stamp] = {}
    while True:
        for path in sorted(folder.iterdir()):
            stamp = _stamp(path)
            if not is_image_name(Path(path.name)) or done.get(path.name) == stamp:
                continue
            if growing.get(path.name) != stamp:
                growing[path.name] = stamp
                continue
            done[path.name] = stamp
            growing.pop(path.name)
            yield str(path), _loaded(path)
        time.sleep(POLL_SECONDS)


def _stamp(path: Path) -> Stamp:
    """Size and time of change; of a file that has just gone, nothing."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_size, found.st_mtime_ns


def _loaded(path: Path) -> Image.Image | InputError:
    try:
        return load_image(path)
    except InputError as error:
        return error


def stdin_image() -> Image.Image:
    """The image that standard input holds.

    Raises:
        InputError: none, or too large to be one.
    """
    data = sys.stdin.buffer.read(MOST_STDIN_BYTES + 1)
    if len(data) > MOST_STDIN_BYTES:
        raise InputError("standard input: more than 256 MB is no image")
    return load_image(io.BytesIO(data))


def camera(name: str) -> Iterator[Frame]:
    """Frames of ``camera``, ``camera:2`` (the V4L2 device's number) or ``picamera2``, as fast as they are asked for.

    Raises:
        DeviceError: the package is missing, or the camera gives nothing.
    """
    if name == "picamera2":
        yield from _picamera()
        return
    number = name.partition(":")[2] or "0"
    if not number.isdigit():
        raise InputError(f"{name}: a camera is camera, camera:NUMBER or picamera2")
    yield from _v4l2(int(number))


def _v4l2(number: int) -> Iterator[Frame]:
    try:
        import cv2
    except ImportError as error:
        raise DeviceError("camera: needs OpenCV; pip install opencv-python-headless") from error
    device: Any = cv2.VideoCapture(number)
    count = 0
    try:
        while True:
            good, frame = device.read()
            if not good:
                raise DeviceError(f"camera:{number} gives no frame; is /dev/video{number} there and free?")
            count += 1
            yield f"camera:{number}/{count}", Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))  # BGR to RGB
    finally:
        device.release()


def _picamera() -> Iterator[Frame]:
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise DeviceError("picamera2: is not installed; apt install python3-picamera2") from error
    device: Any = Picamera2()
    # the format that comes out as R, G, B in memory is called BGR888 there
    device.configure(device.create_still_configuration(main={"format": "BGR888"}))
    device.start()
    count = 0
    try:
        while True:
            count += 1
            yield f"picamera2/{count}", Image.fromarray(device.capture_array())
    finally:
        device.stop()


def frames(source: str) -> Iterator[Frame]:
    """Frames of a camera, or new images of a folder."""
    return camera(source) if source.partition(":")[0] in CAMERAS else watch_folder(Path(source))
