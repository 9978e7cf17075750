"""Tiny bundles of every task, whose right results follow from the picture: their outputs are its colours.

Codes of the input are the pixels less 128. A map has the pixels' own red, green and blue as three logits, at every
second pixel; a vector has their means.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qhyvit.graph.ir import INT8, Graph, Node, Quantization, Tensor
from qhyvit.ops import spec
from qhyvit.tflite.serialize import serialize
from qhyvit_device import cli
from qhyvit_device.preprocess import Preprocess

SIZE = 8
COLOURS = ("red", "green", "blue")
HOW = Preprocess("squash", SIZE, "nearest")
PIXEL = Quantization((float(np.float32(1 / 255)),), -128)  # codes are the pixels less 128
WEIGHT = Quantization((float(np.float32(1 / 127)),))
STEEP = Quantization((0.0625,))  # weights of -8 to 8
LOGIT = Quantization((float(np.float32(1 / 16)),))  # -8 to 8


class _Typed:
    """A typed graph, op by op."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.input = self.add("input", (1, SIZE, SIZE, 3), PIXEL)

    def add(self, name: str, shape: Sequence[int], quantization: Quantization | None, dtype: str = INT8,
            data: Any = None) -> int:  # fmt: skip
        made = Tensor(len(self.tensors), name, tuple(shape), dtype, data, quantization)
        self.tensors.append(made)
        return made.id

    def constant(self, values: Any, dtype: str, quantization: Quantization | None = None) -> int:
        return self.add(f"constant{len(self.tensors)}", values.shape, quantization, dtype, values)

    def node(self, op: str, out: int, *inputs: int, **attrs: Any) -> int:
        self.nodes.append(Node(op, spec(op).attrs(**attrs), inputs, (out,)))
        return out

    def bias(self, values: Sequence[float], weight: Quantization) -> int:
        step = float(np.float32(PIXEL.scale[0] * weight.scale[0]))
        codes = np.rint(np.asarray(values) / step).astype(np.int32)
        return self.constant(codes, "INT32", Quantization((step,), bits=32))

    def map(self, classes: Sequence[int] = (0, 1, 2)) -> int:
        """[1, 4, 4, classes]: these channels of every second pixel."""
        weight = np.zeros((len(classes), 1, 1, 3), np.int8)
        weight[range(len(classes)), 0, 0, list(classes)] = 127
        out = self.add("map", (1, SIZE // 2, SIZE // 2, len(classes)), PIXEL)
        operands = self.constant(weight, INT8, WEIGHT), self.bias([0.0] * len(classes), WEIGHT)
        return self.node("CONV_2D", out, self.input, *operands, stride_h=2, stride_w=2)

    def means(self) -> int:
        """[1, 3]: the means of red, green and blue."""
        out = self.add("means", (1, 3), PIXEL)
        return self.node("MEAN", out, self.input, self.constant(np.array([1, 2], np.int32), "INT32"), keep_dims=False)

    def linear(self, means: int, rows: Any, bias: Sequence[float]) -> int:
        """[1, outputs]: rows of weights, -7 to 7, times the means, and a bias."""
        weight = np.rint(np.asarray(rows) / STEEP.scale[0]).astype(np.int8)
        out = self.add("linear", (1, len(rows)), LOGIT)
        operands = self.constant(weight, INT8, STEEP), self.bias(bias, STEEP)
        return self.node("FULLY_CONNECTED", out, means, *operands)

    def file(self, *outputs: int) -> bytes:
        return serialize(Graph({t.id: t for t in self.tensors}, tuple(self.nodes), (self.input,), outputs))


def model_of(name: str) -> bytes:
    """The file of a task; "one" is a classifier with one logit, "mask" a map of one channel."""
    g = _Typed()
    if name in ("segment", "mask"):
        return g.file(g.map((0, 1, 2) if name == "segment" else (0,)))
    if name in ("classify", "embed"):
        return g.file(g.means())
    if name == "multilabel":
        return g.file(g.linear(g.means(), 6 * np.eye(3), [-3.0] * 3))
    if name in ("regress", "one"):
        return g.file(g.linear(g.means(), [[4.0, 0.0, -4.0]], [0.5]))
    means = g.means()
    return g.file(g.map(), means, g.linear(means, 6 * np.eye(3), [-3.0] * 3))


LABELS: Mapping[str, tuple[str, ...]] = {
    "classify": COLOURS, "multilabel": COLOURS, "segment": COLOURS, "mask": ("red",), "one": ("red",),
    "regress": ("redness",),
}  # fmt: skip
NAMES = ("classify", "multilabel", "regress", "embed", "segment", "several", "one", "mask")
COMMANDS = {"classify": "classify", "multilabel": "classify", "regress": "classify", "one": "classify",
            "embed": "embed", "segment": "segment", "mask": "segment", "several": "run"}  # fmt: skip
TASKS = {"one": "classify", "mask": "segment", "several": "raw"}


def picture(rows: Sequence[str], size: int = SIZE) -> Image.Image:
    """Squares of one colour each, named by its first letter; K is black, W white, G gray."""
    colours = {"r": (255, 0, 0), "g": (0, 255, 0), "b": (0, 0, 255), "K": (0, 0, 0), "W": (255,) * 3, "G": (128,) * 3}
    pixels = np.array([[colours[letter] for letter in row] for row in rows], np.uint8)
    return Image.fromarray(pixels.repeat(size // len(rows), 0).repeat(size // len(rows[0]), 1))


def saved(image: Image.Image, path: Path) -> Path:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    path.write_bytes(stream.getvalue())
    return path


def make_bundle(folder: Path, name: str, how: Preprocess = HOW) -> Path:
    """The bundle of a model by its name, see :func:`model_of`; its test image is red, green, blue and white."""
    from qhyvit.bundle import write_bundle

    image = saved(picture(["rg", "bW"]), folder.with_name(f"{folder.name}.png"))
    facts: dict[str, Any] = {"model": name, "profile": "integer", "versions": {}, "created_by": {}}
    facts["task"] = TASKS.get(name, name)
    if name == "several":
        facts["outputs"] = ("map", "means", "steep")
    write_bundle(folder, model_of(name), how, image, LABELS.get(name), facts)
    image.unlink()
    return folder


def device(capsys: Any, *words: object) -> tuple[int, list[str], list[str]]:
    """Exit code, and lines of stdout and stderr, of a command."""
    code = cli.main([*map(str, words)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def found(capsys: Any, *words: object) -> Any:
    """The first result as JSON says it."""
    code, out, err = device(capsys, *words, "--json")
    assert (code, err) == (0, [])
    return json.loads(out[0])["results"][0]
