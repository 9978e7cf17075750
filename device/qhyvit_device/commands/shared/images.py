"""What is alike in commands that read images: many with broken ones among them, or a source that is watched."""

from __future__ import annotations

import argparse
import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qhyvit_device.commands.shared import arguments
from qhyvit_device.commands.shared.command import PROGRAM
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.preprocess import MODES, images_in
from qhyvit_device.runner import Given, Model
from qhyvit_device.terminal import complain, shown


class ImageReader(ABC):
    """What one command makes of each image; the first thing that a command makes, so that mistakes are said at once.

    Raises:
        DeviceError: options that cannot be.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.errors: list[dict[str, str]] = []

    def open(self, model: Model) -> None:
        """Look at the model before the first image, and at what replaces it.

        Raises:
            InputError: its task is another command's.
        """
        model.check_command(self.args.command)

    @abstractmethod
    def read(self, model: Model, image: Given, name: str) -> Mapping[str, Any]:
        """Plain data about one image.

        Raises:
            InputError: it cannot be read.
        """

    @abstractmethod
    def lines(self, found: Mapping[str, Any]) -> Sequence[str]:
        """The same for people, without control characters."""

    def end(self) -> dict[str, Any]:
        """Write what is to be written of all images that could be read; plain data about it.

        Raises:
            DeviceError: it cannot be written.
        """
        return {}

    def refuse(self, path: Path | str, error: InputError) -> None:
        """Keep what is wrong with a picture."""
        self.errors.append({"image": str(path), "error": str(error)})


def image_options(parser: argparse.ArgumentParser) -> None:
    """Arguments that are alike in all commands that read images."""
    parser.add_argument("bundle", type=Path, help="bundle folder")
    given = "files or folders of images or arrays (.npy, .npz); - is standard input"
    parser.add_argument("images", type=Path, nargs="*", help=given)
    watched = "wait for new images in a folder, or take them from camera, camera:1 (V4L2) or picamera2"
    parser.add_argument("--watch", metavar="SOURCE", help=watched)
    parser.add_argument("--frames", type=arguments.none_or_more, default=0,
                        help="end --watch after so many images (default: never)")  # fmt: skip
    parser.add_argument("--resize-mode", choices=MODES, help="override how the bundle resizes images")
    parser.add_argument("--trust", choices=("always", "once"), default="always",
                        help="once: first start the model in a process of its own, in case it crashes")  # fmt: skip
    parser.add_argument("--threads", type=arguments.threads, default=1, help="interpreter threads (default 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object to stdout")


def read_images(args: argparse.Namespace, make: Callable[[argparse.Namespace], ImageReader]) -> int:
    """Read all images of a command line; the exit code: 0, 1 where some and 2 where all could not be read."""
    from qhyvit_device.trial import load as tried

    if bool(args.images) == bool(args.watch):
        raise DeviceError(f"give images to {args.command}, or --watch SOURCE")
    reader = make(args)
    load = tried if args.trust == "once" else Model.load
    if args.watch:
        return _watch(args, reader, load)
    model = load(args.bundle, args.threads)
    reader.open(model)
    results: list[dict[str, Any]] = []
    for path in list(_paths(args.images)):
        try:
            found = reader.read(model, _opened(path), str(path))
        except InputError as error:  # of this picture alone
            reader.refuse(path, error)
            continue
        results.append({"image": str(path), **found})
        if not args.json:
            print(shown(path))
            print("".join(f"  {line}\n" for line in reader.lines(found)), end="")
    written = reader.end() if results else {}
    if args.json:
        print(json.dumps({"model": model.manifest.model, "results": results, "errors": reader.errors, **written}))
    for failed in reader.errors:
        complain(PROGRAM, failed["error"])
    return 0 if not reader.errors else 1 if results else 2


def _paths(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        yield from images_in(path) if path.is_dir() else (path,)


def _opened(path: Path) -> Given:
    from qhyvit_device.sources import stdin_image

    return stdin_image() if str(path) == "-" else path


def _watch(args: argparse.Namespace, reader: ImageReader, load: Callable[[Path, int], Model]) -> int:
    """One line an image, flushed, for people or (--json) for programs; what cannot be read is said and passed over."""
    from qhyvit_device.live import LiveModel
    from qhyvit_device.sources import frames

    live = LiveModel(args.bundle, args.threads, load)
    reader.open(opened := live.current())
    source = frames(args.watch)
    refused: DeviceError | None = None
    print(f"watching {shown(args.watch)}; Ctrl-C ends it", file=sys.stderr, flush=True)
    for count, (name, image) in enumerate(source, 1):
        try:
            if isinstance(image, DeviceError):
                raise image
            started = time.perf_counter()
            if (model := live.current()) is not opened:
                reader.open(model)
                opened = model
            found = reader.read(model, image, name)
            ms = 1000 * (time.perf_counter() - started)
        except InputError as error:
            complain(PROGRAM, str(error))
        else:
            if args.json:
                line = json.dumps({"image": name, "ms": round(ms, 2), **found})
            else:
                line = f"{shown(name)}  " + ", ".join(reader.lines(found))
            print(line, flush=True)
        for failed in reader.errors:
            complain(PROGRAM, failed["error"])
        reader.errors.clear()
        del image  # two large ones would be there at once
        if live.refused is not refused and live.refused is not None:
            complain(PROGRAM, f"{live.refused}; the bundle before is used")
        refused = live.refused
        if count == args.frames:
            break
    return 0
