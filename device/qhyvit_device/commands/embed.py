"""``embed``: images as vectors of length 1, and the nearest pictures of a gallery."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device import files
from qhyvit_device.commands.shared.arguments import count
from qhyvit_device.commands.shared.command import Command
from qhyvit_device.commands.shared.images import ImageReader, image_options, read_images
from qhyvit_device.errors import DeviceError
from qhyvit_device.gallery import Gallery
from qhyvit_device.runner import Given, Model
from qhyvit_device.terminal import shown

TOP, FIRST = 5, 4


class _Vectors(ImageReader):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._gallery: Gallery | None = None
        self._vectors: list[np.ndarray] = []
        if args.top is not None and args.gallery is None:
            raise DeviceError("--top says how many of a gallery to show; give --gallery FOLDER")
        if args.out is not None:
            if args.watch:
                raise DeviceError("--out needs images: --watch has no end")
            files.check_target(args.out)

    def open(self, model: Model) -> None:
        super().open(model)
        if self.args.gallery is not None:
            self._gallery = Gallery(model, self.args.gallery, self.args.resize_mode, self.refuse)

    def read(self, model: Model, image: Given, name: str) -> Mapping[str, Any]:
        vector = model.embed(image, self.args.resize_mode)
        if self.args.out is not None:
            self._vectors.append(vector)
        found: dict[str, Any] = {"embedding": [round(float(v), 6) for v in vector]}
        if self._gallery is not None:
            near = self._gallery.nearest(vector, self.args.top or TOP, Path(name))
            found["neighbours"] = [asdict(n) for n in near]
        return found

    def lines(self, found: Mapping[str, Any]) -> Sequence[str]:
        if "neighbours" in found:
            return [f"{n['cosine']:.4f}  {shown(n['image'])}" for n in found["neighbours"]]
        vector = found["embedding"]
        first = " ".join(f"{v:.4f}" for v in vector[:FIRST])
        return [f"{len(vector)} values: {first}{' ...' if len(vector) > FIRST else ''}"]

    def end(self) -> dict[str, Any]:
        if self.args.out is None:
            return {}
        stream = io.BytesIO()
        np.save(stream, np.stack(self._vectors), allow_pickle=False)
        files.write(self.args.out, stream.getvalue())
        return {"out": str(self.args.out)}


def _options(parser: argparse.ArgumentParser) -> None:
    image_options(parser)
    parser.add_argument("--gallery", type=Path, metavar="FOLDER", help="show the nearest of these pictures, by cosine")
    parser.add_argument("--top", type=count, help=f"pictures of the gallery to show (default {TOP})")
    parser.add_argument("--out", type=Path, metavar="FILE.npy", help="write the embeddings, [images, values] float32")


COMMAND = Command("embed", "turn images into vectors; find the nearest pictures of a gallery", _options,
                  lambda args: read_images(args, _Vectors))  # fmt: skip
