"""``classify``: the most probable classes of images, the labels that hold, or the values of a regression."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from qhyvit_device.commands.shared.arguments import count, share
from qhyvit_device.commands.shared.command import Command
from qhyvit_device.commands.shared.images import ImageReader, image_options, read_images
from qhyvit_device.errors import DeviceError
from qhyvit_device.runner import Given, Model
from qhyvit_device.terminal import shown

TOP, THRESHOLD = 5, 0.5


class _Classes(ImageReader):
    def open(self, model: Model) -> None:
        super().open(model)
        if self.args.threshold is not None and model.manifest.task != "multilabel":
            raise DeviceError(f"--threshold is for labels that may hold together; of {model.bundle} one is right")

    def read(self, model: Model, image: Given, name: str) -> Mapping[str, Any]:
        outputs = model.run(model.prepare(image, self.args.resize_mode))
        if model.manifest.task == "regress":
            return {"values": [asdict(v) for v in model.values(outputs)]}
        if model.manifest.task == "multilabel" and self.args.top is None:
            least = THRESHOLD if self.args.threshold is None else self.args.threshold
            found = model.predictions(outputs, least=least)
        else:
            found = model.predictions(outputs, self.args.top or TOP)
        return {"predictions": [asdict(p) for p in found]}

    def lines(self, found: Mapping[str, Any]) -> Sequence[str]:
        if "values" in found:
            return [f"{v['value']:.6g}  {shown(v['name'])}" for v in found["values"]]
        rows = [(p["label"], p["index"], 100 * p["probability"]) for p in found["predictions"]]
        if self.args.watch:
            said = [f"{shown(label)} {percent:.0f} %" for label, _, percent in rows]
        else:
            said = [f"{percent:5.1f} %  {shown(label)} ({index})" for label, index, percent in rows]
        return said or ["no label holds"]


def _options(parser: argparse.ArgumentParser) -> None:
    image_options(parser)
    parser.add_argument("--top", type=count, help=f"classes to show (default {TOP})")
    parser.add_argument("--threshold", type=share, metavar="P",
                        help=f"show labels of at least this probability (default {THRESHOLD})")  # fmt: skip


def _run(args: argparse.Namespace) -> int:
    if args.top is not None and args.threshold is not None:
        raise DeviceError("give --top or --threshold")
    return read_images(args, _Classes)


COMMAND = Command("classify", "print the classes, labels or values of images", _options, _run)
