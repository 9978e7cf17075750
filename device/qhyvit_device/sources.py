"""Where images come from besides named files: a folder that is watched, a camera, standard input.

Cameras need a package that the user has: OpenCV for V4L2 devices (USB cameras), picamera2 for a Raspberry Pi's own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qhyvit_device.arrays import SUFFIXES as ARRAY_SUFFIXES
from qhyvit_device.arrays import Array
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.pictures import DRAFT_BYTES, Upright, named
from qhyvit_device.preprocess import SUFFIXES, opened

POLL_SECONDS = 0.25
BUSY_SHARE = 10  # pauses are so many times as long as a look: thousands of files must not take a core
MOST_FORGOTTEN = 50_000  # names that are gone and remembered: a stick may come back
MOST_STDIN_BYTES = 256 << 20
CAMERAS = ("camera", "picamera2")
WATCHED = (*SUFFIXES, *ARRAY_SUFFIXES)
Frame = tuple[str, "Image.Image | Array | InputError"]
Marks = NDArray[np.int64]  # eight bytes a picture: names and times of a hundred thousand would take 40 MB


def watch_folder(folder: Path) -> Iterator[Frame]:
    """Images and arrays that appear in ``folder``, each once it stays the same from one look to the next; for ever.

    What lies there at the call is left out. One that cannot be read comes as its error; so does, once, a folder that
    has gone, which is waited for.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder to watch")
    try:
        return _appearing(folder, np.sort(_marks(_images(folder))))
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from error


def _appearing(folder: Path, done: Marks) -> Iterator[Frame]:
    growing: dict[str, int] = {}
    gone = False
    while True:
        started = time.monotonic()
        try:
            found = _images(folder)
        except OSError as error:
            if not gone:
                yield str(folder), InputError(f"{folder}: {error.strerror}; waiting for it")
            gone = True
            time.sleep(POLL_SECONDS)
            continue
        gone, marks = False, _marks(found)
        ready = {name: mark for name, mark in found.items() if growing.get(name) == mark}
        fresh = ~_among(done, marks)
        growing = {n: m for (n, m), new in zip(found.items(), fresh, strict=True) if new and n not in ready}
        if len(done) > len(found) + MOST_FORGOTTEN:
            done = done[_among(np.sort(marks), done)]
        done = np.concatenate((done, _marks(ready)))
        done.sort()
        looked = time.monotonic() - started
        for name in sorted(ready):
            path = os.path.join(folder, name)  # Python keeps the parts of each Path in a table that grows
            yield path, _loaded(path)
        time.sleep(max(POLL_SECONDS, BUSY_SHARE * looked))


def _among(known: Marks, marks: Marks) -> NDArray[np.bool_]:
    """Which of ``marks`` are among ``known``, which are sorted; numpy's isin would copy all of them."""
    if not len(known):
        return np.zeros(len(marks), np.bool_)
    places = np.searchsorted(known, marks)
    found: NDArray[np.bool_] = known[np.minimum(places, len(known) - 1)] == marks
    return found


def _marks(found: Mapping[str, int]) -> Marks:
    return np.fromiter(found.values(), np.int64, len(found))


def _images(folder: Path) -> dict[str, int]:
    """Regular files of images and arrays: of each name a mark, which is another one where the name is used again.

    Raises:
        OSError: the folder is gone, or cannot be read.
    """
    found: dict[str, int] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not entry.name.lower().endswith(WATCHED):
                continue
            try:
                if entry.is_file():
                    s = entry.stat()
                    found[entry.name] = hash((entry.name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino))
            except OSError:  # it has just gone
                continue
    return found


def _loaded(path: str) -> Image.Image | Array | InputError:
    try:
        image = opened(path, None, DRAFT_BYTES)
        if isinstance(image, Image.Image):
            with named(path):
                Upright(image)
        return image
    except InputError as error:
        return error


def stdin_image() -> Image.Image | Array:
    """The image that standard input holds, decoded, or the array.

    Raises:
        InputError: none, or too large to be one.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed")
    with tempfile.TemporaryFile() as file:  # a picture is sought in, and all of it may not fit into memory
        while piece := sys.stdin.buffer.read(1 << 20):
            if file.tell() + len(piece) > MOST_STDIN_BYTES:
                raise InputError(f"standard input: more than {MOST_STDIN_BYTES >> 20} MB is no image")
            file.write(piece)
        file.seek(0)
        return opened(file, None, DRAFT_BYTES)


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
