"""The folder that cases run in: originals of every kind of input, made once, and stand-ins for what takes long."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from qhyvit import stages
from qhyvit.config import DataConfig, MethodConfig
from qhyvit.errors import ExportError
from qhyvit.lowering.lower import quantized_file
from qhyvit.methods import method
from qhyvit.methods.shared.problem import Problem
from qhyvit.passes import prepared
from qhyvit.plan import QuantPlan
from qhyvit.tflite.serialize import serialize
from qhyvit.work import FACTS as EXPORTED
from qhyvit.work import FLOAT, Work
from qhyvit_device import cli
from tests._bundles import make_bundle, model_of
from tests._graphs import PIECES, Builder
from tests._layer_graphs import CLASSES, SIZE, graph_of

sys.dont_write_bytecode = True  # beside the factories, which would be files left
NET = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, classes)
        self.preprocess = {"input_size": 32}
    def forward(self, x):
        return self.head(self.stem(x).mean((2, 3)))

def make():
    return Net()
"""
BENCH = "bench b --runs 2 --seconds 0 --warmup 0 --no-memory --profile-ops --json bench.json"
TASKED = ("multilabel", "regress", "embed", "segment", "several", "mask")  # bundles of other tasks
SCHEMA_1 = Path(__file__).parents[1] / "device" / "schema1" / "manifest.json"
LAYERS = ("depthwise_dilated", "transposed_same", "prelu", "shuffled", "linear_of_tokens", "depth_multiplier")
WHOLE = "depthwise"  # the network of bundle and work directory
FACTS = {
    "model": "m", "family": "own", "task": "classify", "outputs": [{"name": "output", "shape": [CLASSES]}],
    "classes": CLASSES, "input_shape": [SIZE, SIZE, 3], "bridge_blocks": [], "float_error": 0.0,
    "preprocess": {"resize": SIZE, "interpolation": "bicubic", "mean": [0.0] * 3, "std": [1.0] * 3}, "weights": "w",
    "float_images": 0, "cut": "", "equivalents": [], "versions": {},
}  # fmt: skip
CONFIG = """
[model]
name = "net.py:make"
task = "classify"
[data]
images = "images"
count = 2
[method]
name = "percentile"
options = { percentile = 99.9 }
seed = 0
bits = 8
[target]
profile = "integer"
int16 = true
[output]
out = "out"
"""
SWEEP = """
seeds = [0, 1]
methods = ["minmax", { name = "percentile", label = "p", options = { percentile = 99.9 } }]
models = [{ name = "mobilevit_xxs", weights = "weights/plain.pth", classes = 10, input_size = 128 }]
[calibration]
images = "images"
count = 2
[evaluation]
images = "images"
resize_mode = "squash"
"""


def make(folder: Path) -> None:
    """Write the originals into an empty folder: pictures, models, weights, bundles, and a work directory of one."""
    (folder / "net.py").write_text(NET)
    for name, files in (("images", images()), ("pictures", pictures()), ("models", models()), ("weights", weights())):
        (folder / name).mkdir()
        for file, content in files.items():
            (folder / name / file).write_bytes(content)
    (folder / "tasks").mkdir()
    for name in TASKED:
        make_bundle(folder / "tasks" / name, name)
    (folder / "schema1.json").write_bytes(SCHEMA_1.read_bytes())
    with contextlib.chdir(folder):
        _build()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            ended = cli.main(BENCH.split())
        if ended:
            raise RuntimeError("the bench did not work")


def images() -> dict[str, bytes]:
    """Two labelled images."""
    found = {f"{i}.png": _saved(_noise(i, 9, 9), "PNG") for i in range(2)}
    return {**found, "labels.csv": b"file,class_index\n0.png,0\n1.png,1\n"}


def _noise(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Squares of a few pixels, so that compression has something to do."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (-(-height // 3), -(-width // 3), channels), dtype=np.uint8)
    return small.repeat(3, 0).repeat(3, 1)[:height, :width]


def _saved(pixels: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    """Every format of the allow-list in its modes, with metadata, animation and 16 bits; two photographs if any."""
    rgb = Image.fromarray(_noise(0, 24, 31))
    turned = Image.Exif()
    turned[0x0112] = 6
    turned[0x010E] = "a picture"
    rgba = Image.fromarray(_noise(1, 24, 31, 4), "RGBA")
    wide = Image.fromarray(_noise(2, 24, 31, 1)[..., 0].astype(np.uint16) * 257)
    found = {
        "rgb.png": _saved(rgb, "PNG"), "rgba.png": _saved(rgba, "PNG", exif=turned, dpi=(72, 72)),
        "palette.png": _saved(rgb.quantize(7), "PNG", transparency=3), "gray16.png": _saved(wide, "PNG"),
        "bits.png": _saved(rgb.convert("1"), "PNG"), "rgb.jpg": _saved(rgb, "JPEG", exif=turned),
        "animated.png": _saved(rgb, "PNG", save_all=True, append_images=[rgb]),
        "progressive.jpg": _saved(rgb, "JPEG", progressive=True, quality=90),
        "gray.jpg": _saved(rgb.convert("L"), "JPEG"), "cmyk.jpg": _saved(rgb.convert("CMYK"), "JPEG", subsampling=0),
        "rgb.bmp": _saved(rgb, "BMP"), "palette.bmp": _saved(rgb.quantize(7), "BMP"),
        "bits.bmp": _saved(rgb.convert("1"), "BMP"), "rgba.bmp": _saved(rgba, "BMP"),
        "rgb.webp": _saved(rgb, "WEBP", exif=turned), "lossless.webp": _saved(rgba, "WEBP", lossless=True),
        "animated.webp": _saved(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90)]),
        "rgb.ppm": _saved(rgb, "PPM"), "gray.ppm": _saved(rgb.convert("L"), "PPM"),
        "bits.ppm": _saved(rgb.convert("1"), "PPM"), "gray16.ppm": _saved(wide.convert("I"), "PPM"),
        "plain.ppm": b"P3\n# text\n3 2\n255\n" + b" ".join(b"%d" % (i * 14) for i in range(18)) + b"\n",
    }  # fmt: skip
    shared = os.environ.get("QHYVIT_SHARED")
    photographs = sorted(Path(shared, "data").rglob("*.jp*g"))[:2] if shared else []
    return {**found, **{f"photograph{i}.jpg": path.read_bytes() for i, path in enumerate(photographs)}}


def _solved(graph: Any, shape: tuple[int, ...]) -> tuple[bytes, bytes]:
    """The float file of a graph and its int8 file by min-max."""
    images = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    chosen = method("minmax")
    solution = chosen.search(Problem(prepared(graph), images), chosen.defaults)
    return serialize(graph), quantized_file(solution.shipped, QuantPlan(solution.tensors, "minmax"))


def models() -> dict[str, bytes]:
    """Small integer files, most bytes of which are no weights, and one float file."""
    found = {f"{name}.tflite": _solved(graph_of(name), (SIZE, SIZE, 3))[1] for name in LAYERS}
    for piece in ("softmax attention", "gathered", "nearest", "silu", "every second", "mirrored"):
        b = Builder(np.random.default_rng(0))
        graph = b.graph(b.linear(b.add("MEAN", b.tokens(PIECES[piece](b, b.conv(b.input))), b.integers(1)), 4))
        found[f"{piece.replace(' ', '_')}.tflite"] = _solved(graph, (4, 4, 3))[1]
    found |= {f"{name}.tflite": model_of(name) for name in ("segment", "several")}
    return {**found, "float.tflite": serialize(graph_of(WHOLE))}


def weights() -> dict[str, bytes]:
    """State dicts of ``NET`` in every form that is read."""
    from safetensors.torch import save

    sizes = {"stem.weight": (4, 3, 4, 4), "stem.bias": (4,), "head.weight": (4, 4), "head.bias": (4,)}
    state = {name: torch.ones(size) for name, size in sizes.items()}
    forms: dict[str, Any] = {
        "plain.pth": state, "module.pth": {"module." + k: v for k, v in state.items()},
        "nested.pth": {"state_dict": state, "epoch": np.float64(1)},
    }  # fmt: skip
    found = {"plain.safetensors": save(state)}
    for name, form in forms.items():
        for old in (False, True):
            stream = io.BytesIO()
            torch.save(form, stream, _use_new_zipfile_serialization=not old)
            found[f"old_{name}" if old else name] = stream.getvalue()
    return found


def _build() -> None:
    """``b`` and ``b.work``: stages of a build, the export left out."""
    work = Work(Path("b.work"))
    work.folder.mkdir()
    (work.folder / FLOAT).write_bytes(serialize(graph_of(WHOLE)))
    (work.folder / EXPORTED).write_text(json.dumps(FACTS))
    where = Path("images")
    stages.calibrate(work, DataConfig(where, 2, "squash"), MethodConfig("minmax"))
    stages.convert(work)
    stages.verify(work, where, 2, 0, "squash", 0.0)
    names = Path("names.txt")
    names.write_text("".join(f"class {i}\n" for i in range(CLASSES)))
    stages.bundle(work, Path("b"), where, names, "qhyvit build m --method minmax --out b", force=False)
    Path("config.toml").write_text(CONFIG)
    Path("sweep.toml").write_text(SWEEP)


def _refuse(*_: Any, **__: Any) -> None:
    raise ExportError("the exporter was reached")


@contextlib.contextmanager
def stand_ins(folder: Path) -> Iterator[None]:
    """In a copy of the place: no exporter, and no ssh, pip or podman to be found."""
    here = contextlib.chdir(folder)
    path = mock.patch.dict(os.environ, {"PATH": str(folder)})
    with here, path, mock.patch("qhyvit.models.shared.export.export", _refuse):
        yield
