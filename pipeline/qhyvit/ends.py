"""A bundle's file with uint8 or float32 ends and metadata, for libraries that take no int8: MediaPipe and others.

Between the new ends and the file's own stand QUANTIZE and DEQUANTIZE, and where pixels are not the input's codes a
depthwise convolution of one pixel, which normalises them. The file itself stays as it was proven.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qhyvit import files
from qhyvit.errors import CheckFailedError, InputError
from qhyvit.graph.ir import FLOAT, INT8, Graph, Node, Quantization, Tensor
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Kernel, Quants
from qhyvit.tflite.metadata import Described, with_metadata
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit_device.manifest import Manifest
from qhyvit_device.preprocess import load_input, normalize, quantize
from qhyvit_device.runner import Model, TfliteFile

UINT8, FLOAT32 = "uint8", "float32"
KINDS = (UINT8, FLOAT32)
TRIED = 8  # random pictures beside the bundle's own
NUDGES = 16  # steps of a bias to both sides, each less than a hundredth of a code
CONVOLVED = {"padding": "VALID", "stride_h": 1, "stride_w": 1, "depth_multiplier": 1}
WHOLE = 127  # the code of each weight of the convolution that normalises


@dataclass(frozen=True)
class Ends:
    """What was written: bytes, how many pictures were tried, and of all output codes the share that is equal."""

    size: int
    tried: int
    equal: float


def write_ends(bundle: Path, out: Path, kind: str, *, licence: str = "", force: bool = False) -> Ends:
    """Write a bundle's file with other ends, and metadata.

    Args:
        kind: type of input and outputs: ``uint8`` takes pixels, ``float32`` normalised ones.
        licence: of the weights.

    Raises:
        InputError: the bundle is none, has no int8 ends, or no picture as input.
        CheckFailedError: the file does not give what the bundle's gives.
        OutputError: it cannot be written.
    """
    files.check_file(out, force=force)
    model = Model.load(bundle)
    manifest = model.manifest
    if manifest.input.dtype != "int8" or any(o.dtype != "int8" for o in manifest.outputs):
        raise InputError(f"{bundle}: its inputs and outputs are not int8")
    if manifest.input.channels not in (1, 3):
        raise InputError(f"{bundle}: an input of {manifest.input.channels} channels is no picture")
    graph = with_ends(read(files.read_bytes(bundle / manifest.model_file, "model")), manifest, kind)
    labels = tuple(model.labels) if manifest.task in ("classify", "multilabel") else ()
    whole = kind == FLOAT32
    described = Described(
        manifest.model, graph.tensors[graph.inputs[0]].name, tuple(graph.tensors[t].name for t in graph.outputs),
        tuple(255 * m for m in manifest.preprocess.mean) if whole else (0.0,) * manifest.input.channels,
        tuple(255 * s for s in manifest.preprocess.std) if whole else (1.0,) * manifest.input.channels,
        manifest.input.channels, labels, licence,
    )  # fmt: skip
    content = with_metadata(serialize(graph), described)
    equal = _checked(model, content, kind)
    files.write_bytes(out, content)
    return Ends(len(content), TRIED + 1, equal)


def with_ends(graph: Graph, manifest: Manifest, kind: str) -> Graph:
    """A typed graph with input and outputs of another type."""
    made = _Ended(dict(graph.tensors))
    entry = graph.tensors[graph.inputs[0]]
    if kind == FLOAT32:
        first = made.tensor("input_float", entry.shape, FLOAT, None)
        before = [made.node("QUANTIZE", (first,), entry.id)]
    else:
        first, before = made.pixels(entry, manifest)
    outputs, behind = [], []
    for t in graph.outputs:
        out = graph.tensors[t]
        assert out.quantization is not None
        unsigned = replace(out.quantization, zero_point=out.quantization.zero_point + 128)
        dtype, quantization = (FLOAT, None) if kind == FLOAT32 else ("UINT8", unsigned)
        outputs.append(made.tensor(f"{out.name}_{kind}", out.shape, dtype, quantization))
        behind.append(made.node("DEQUANTIZE" if kind == FLOAT32 else "QUANTIZE", (t,), outputs[-1]))
    nodes = (*before, *graph.nodes, *behind)
    return Graph(made.tensors, nodes, (first,), tuple(outputs), facts=graph.facts)


@dataclass
class _Ended:
    """Tensors, the file's own and new ones."""

    tensors: dict[int, Tensor]

    def tensor(
        self, name: str, shape: tuple[int, ...], dtype: str, quantization: Quantization | None,
        data: np.ndarray | None = None,
    ) -> int:  # fmt: skip
        names, unique = {t.name for t in self.tensors.values()}, name
        while unique in names:
            unique += "_"
        made = Tensor(max(self.tensors) + 1, unique, shape, dtype, data, quantization)
        self.tensors[made.id] = made
        return made.id

    @staticmethod
    def node(op: str, inputs: tuple[int, ...], out: int, **attrs: object) -> Node:
        return Node(op, spec(op).attrs(**attrs), inputs, (out,))

    def pixels(self, entry: Tensor, manifest: Manifest) -> tuple[int, list[Node]]:
        """An input of pixels, and the nodes that make the file's codes of them."""
        quant, channels = entry.quantization, entry.shape[-1]
        assert quant is not None
        if _are_codes(manifest):
            first = self.tensor("pixels", entry.shape, "UINT8", replace(quant, zero_point=quant.zero_point + 128))
            return first, [self.node("QUANTIZE", (first,), entry.id)]
        step = float(np.float32(1 / 255))
        first = self.tensor("pixels", entry.shape, "UINT8", Quantization((step,)))
        signed = self.tensor("pixels_int8", entry.shape, INT8, Quantization((step,), -128))
        mean, std = (np.asarray(v, np.float64) for v in (manifest.preprocess.mean, manifest.preprocess.std))
        scales = tuple(float(v) for v in (1 / (WHOLE * std)).astype(np.float32))
        codes = np.full((1, 1, 1, channels), WHOLE, np.int8)
        weight = self.tensor("normalise", codes.shape, INT8, Quantization(scales, axis=3), codes)
        sums = np.float32(step) * np.asarray(scales, np.float32)
        grids = Quantization((step,), -128), Quantization(scales, axis=3)
        offsets = _offsets(np.rint(-mean / std / sums).astype(np.int64), grids, quant, manifest)
        bias = self.tensor("normalise_bias", (channels,), "INT32",
                           Quantization(tuple(float(s) for s in sums), axis=0, bits=32), offsets)  # fmt: skip
        convolved = self.node("DEPTHWISE_CONV_2D", (signed, weight, bias), entry.id, **CONVOLVED)
        return first, [self.node("QUANTIZE", (first,), signed), convolved]


def _offsets(
    exact: np.ndarray, grids: tuple[Quantization, Quantization], write: Quantization, manifest: Manifest
) -> np.ndarray:
    """The biases near the exact ones, int32 [C], with which most pixels get the codes of the bundle's own table.

    Where a value lies between two codes the table takes the even one; a bias a little off decides as it does.
    """
    op, channels = spec("DEPTHWISE_CONV_2D"), len(exact)
    assert op.integer is not None
    every = np.arange(256, dtype=np.uint8)[:, None, None].repeat(channels, axis=2)
    wanted = quantize(every, manifest.preprocess, write.scale[0], write.zero_point, "int8").reshape(256, channels)
    quants = Quants((*grids, Quantization((1.0,), bits=32)), (write,))
    codes, weight = every.astype(np.int64)[None, None] - 128, np.full((1, 1, 1, channels), WHOLE, np.int64)
    best, fewest = exact.copy(), np.full(channels, 257)
    for nudge in sorted(range(-NUDGES, NUDGES + 1), key=abs):
        (found,) = op.integer([codes, weight, exact + nudge], quants, op.attrs(**CONVOLVED), Kernel.X86)
        wrong = (found.reshape(256, channels) != wanted).sum(axis=0)
        best, fewest = np.where(wrong < fewest, exact + nudge, best), np.minimum(wrong, fewest)
    return best.astype(np.int32)


def _are_codes(manifest: Manifest) -> bool:
    """Whether every pixel is its own code, less 128."""
    assert manifest.input.scale is not None
    assert manifest.input.zero_point is not None
    every = np.arange(256, dtype=np.uint8)[:, None, None].repeat(manifest.input.channels, axis=2)
    codes = quantize(every, manifest.preprocess, manifest.input.scale, manifest.input.zero_point, "int8")
    return bool((codes.astype(int) == every.astype(int) - 128).all())


def _checked(model: Model, content: bytes, kind: str) -> float:
    """The share of output codes that are the bundle's own, on its picture and random ones.

    Raises:
        CheckFailedError: another first code is highest, or where ends only convert, a code differs.
    """
    manifest, ended = model.manifest, TfliteFile(content)
    shape, rng = manifest.input.shape, np.random.default_rng(0)
    pictures = [load_input(model.bundle / manifest.test.image_file, shape, replace(manifest.preprocess, mode="squash"))]
    pictures += [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(TRIED)]
    compared = same = 0
    assert manifest.input.scale is not None
    assert manifest.input.zero_point is not None
    exact = kind == FLOAT32 or _are_codes(manifest)
    for picture in pictures:
        codes = quantize(picture, manifest.preprocess, manifest.input.scale, manifest.input.zero_point, "int8")
        own = [x.astype(int) for x in model.file.invoke(codes)]
        fed = normalize(picture, manifest.preprocess) if kind == FLOAT32 else picture
        for out, mine, made in zip(manifest.outputs, own, ended.invoke(fed), strict=True):
            assert out.scale is not None
            assert out.zero_point is not None
            found = np.rint(made / out.scale + out.zero_point) if kind == FLOAT32 else made.astype(int) - 128
            compared, same = compared + mine.size, same + int((found == mine).sum())
            if np.abs(found - mine).max() > (1 if exact else 8) or not _near(found, mine):
                raise CheckFailedError(f"{kind} ends: {out.name} is not what the bundle's file gives")
    return same / compared


def _near(found: np.ndarray, mine: np.ndarray) -> bool:
    """Whether the highest of one is among the highest of the other, a step apart at most."""
    return bool(mine.ravel()[found.argmax()] >= mine.max() - 1)
