"""``run``: every output of any bundle, as it is."""

from __future__ import annotations

import argparse
import io
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit_device import files
from qhyvit_device.commands.shared.command import Command
from qhyvit_device.commands.shared.images import ImageReader, image_options, read_images
from qhyvit_device.errors import DeviceError
from qhyvit_device.runner import Given, Model
from qhyvit_device.terminal import shown


class _Outputs(ImageReader):
    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self._values: defaultdict[str, list[np.ndarray]] = defaultdict(list)
        if args.out is not None:
            if args.watch:
                raise DeviceError("--out needs images: --watch has no end")
            files.check_target(args.out)

    def open(self, model: Model) -> None:
        """Any task will do."""

    def read(self, model: Model, image: Given, name: str) -> Mapping[str, Any]:
        outputs = model.run(model.prepare(image, self.args.resize_mode))
        found = []
        for output in outputs.facts.values():
            values = outputs.dequantized(output.name)
            found.append({"name": output.name, "shape": [*output.shape], "dtype": output.dtype, **_figures(values)})
            if self.args.out is not None:
                self._values[output.name].append(values)
        return {"outputs": found}

    def lines(self, found: Mapping[str, Any]) -> Sequence[str]:
        said = []
        for o in found["outputs"]:
            figures = (f"{key} {'none' if o[key] is None else format(o[key], '.6g')}" for key in ("min", "max", "mean"))
            said.append(f"{shown(o['name'])}  {o['dtype']} {o['shape']}  {'  '.join(figures)}")
        return said

    def end(self) -> dict[str, Any]:
        if self.args.out is None:
            return {}
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:  # as np.savez, which takes some names for options of its own
            for name, values in self._values.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    joined = np.concatenate(values) if values[0].shape[:1] == (1,) else np.stack(values)
                    np.lib.format.write_array(member, joined, allow_pickle=False)
        files.write(self.args.out, stream.getvalue())
        return {"out": str(self.args.out)}


def _figures(values: np.ndarray) -> dict[str, float | None]:
    """Of values as they are, None where they are infinite or no numbers."""
    with np.errstate(invalid="ignore", over="ignore"):
        figures = {"min": values.min(), "max": values.max(), "mean": values.mean(dtype=np.float64)}
    return {key: float(value) if np.isfinite(value) else None for key, value in figures.items()}


def _options(parser: argparse.ArgumentParser) -> None:
    image_options(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.npz",
                        help="write the values of each output by its name, [images, ...] float32")  # fmt: skip


COMMAND = Command("run", "show all outputs of a bundle of any task", _options, lambda args: read_images(args, _Outputs))
