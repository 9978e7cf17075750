"""``segment``: which class each pixel has, and the picture with that laid over it."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qhyvit_device import files
from qhyvit_device.commands.shared.command import Command
from qhyvit_device.commands.shared.images import ImageReader, image_options, read_images
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.overlay import canvas, drawn, view
from qhyvit_device.pictures import DRAFT_BYTES
from qhyvit_device.preprocess import opened
from qhyvit_device.runner import Given, Model
from qhyvit_device.terminal import shown


class _Maps(ImageReader):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._single = not args.watch and len(args.images) == 1 and not args.images[0].is_dir()
        self._drawn: set[Path] = set()
        if args.draw is not None and self._single:
            files.check_target(args.draw)
        elif args.draw is not None and not args.draw.is_dir():
            raise DeviceError(f"--draw {args.draw}: of several images, name a folder that is there")

    def read(self, model: Model, image: Given, name: str) -> Mapping[str, Any]:
        target = None if self.args.draw is None else self._target(name)
        ready = isinstance(image, Image.Image | np.ndarray)
        picture: Any = image if ready else opened(image, model.manifest.input.shape, DRAFT_BYTES)  # type: ignore[arg-type]
        outputs = model.run(model.prepare(picture, self.args.resize_mode))
        shares = model.segmentation(outputs).shares()
        found: dict[str, Any] = {"classes": [asdict(s) for s in shares]}
        if target is not None:
            facts, mode = model.manifest, self.args.resize_mode
            how = facts.preprocess if mode is None else replace(facts.preprocess, mode=mode)
            is_array = isinstance(picture, np.ndarray)
            pixels = canvas(picture) if is_array else view(picture, facts.input.height, facts.input.width, how)
            stream = io.BytesIO()
            drawn(pixels, model.segmentation(outputs, *pixels.shape[:2]), shares).save(stream, "PNG")
            files.write(target, stream.getvalue())
            self._drawn.add(target)
            found["drawn"] = str(target)
        return found

    def _target(self, name: str) -> Path:
        """Where the drawing of an image goes; a watched folder's names may come again."""
        if self._single:
            path: Path = self.args.draw
            return path
        path = self.args.draw / f"{Path(name).name}.png"
        if path in self._drawn and not self.args.watch:
            raise InputError(f"{name}: {path} shows another image of this name")
        files.check_target(path)
        return path

    def lines(self, found: Mapping[str, Any]) -> Sequence[str]:
        said = [f"{100 * c['share']:5.1f} %  {shown(c['label'])} ({c['index']})" for c in found["classes"]]
        if self.args.watch:
            said = [f"{shown(c['label'])} {100 * c['share']:.0f} %" for c in found["classes"]]
        return [*said, f"drawn: {shown(found['drawn'])}"] if "drawn" in found else said


def _options(parser: argparse.ArgumentParser) -> None:
    image_options(parser)
    parser.add_argument("--draw", type=Path, metavar="OUT.png",
                        help="write the picture with the map over it; for several images name a folder")  # fmt: skip


COMMAND = Command("segment", "find the class of each pixel; draw it over the picture", _options,
                  lambda args: read_images(args, _Maps))  # fmt: skip
