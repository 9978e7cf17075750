"""The stock converter beside ours: ai-edge-quantizer's static and dynamic recipes, deployed, on the same images.

Two float files are quantized: the stock export of timm's module (MobileViTv2 with its one line that does not convert
replaced), and the export of this project's equivalent blocks. Calibration images are those of the bundle's build.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._files import (
    RESULTS,
    add_images,
    model_name,
    pixels_of,
    random_weights,
    ranked_sets,
    shares,
    write_rows,
)  # fmt: skip
from qhyvit import data
from qhyvit.errors import InputError
from qhyvit.evaluation import feed_of, logits_of
from qhyvit.tasks.shared.accuracy import count
from qhyvit.verify.census import census
from qhyvit.work import default_preprocess
from qhyvit_device.arrays import Shape
from qhyvit_device.interpreter import find_interpreter
from qhyvit_device.preprocess import Preprocess
from qhyvit_device.runner import TfliteFile

RECIPES = ("static_wi8_ai8", "dynamic_wi8_afp32")


def _separable_attention(self: Any, x: torch.Tensor) -> torch.Tensor:
    """MobileViTv2's attention with the broadcast left implicit, so that litert-torch takes it; [B, C, P, N]."""
    query, key, value = self.qkv_proj(x).split([1, self.embed_dim, self.embed_dim], dim=1)
    context = (key * torch.softmax(query, dim=-1)).sum(dim=-1, keepdim=True)
    return self.out_proj(torch.relu(value) * context)


@contextmanager
def convertible() -> Iterator[None]:
    """timm's MobileViTv2 in a form that litert-torch converts."""
    from qhyvit.models.shared.timm_models import import_timm

    import_timm()  # Mobile-Former's source has not done so
    from timm.models import mobilevit

    original = mobilevit.LinearSelfAttention.forward
    mobilevit.LinearSelfAttention.forward = lambda self, x, x_prev=None: _separable_attention(self, x)
    try:
        yield
    finally:
        mobilevit.LinearSelfAttention.forward = original


def stock_export(model: str, weights: Path | None, shape: Shape, seed: int = 0) -> bytes:
    """Float ``.tflite`` of timm's own module; without a file its weights are random by ``seed``."""
    from qhyvit.models.shared.conversion import convert
    from qhyvit.models.shared.modules import ChannelsLast
    from qhyvit.models.shared.source import open_source

    module = open_source(model, weights, seed=seed, random_weights=random_weights(model, weights)).reference
    with convertible():
        return convert(ChannelsLast(module), shape)


def quantize(float_model: bytes, name: str, pixels: np.ndarray, how: Preprocess) -> bytes:
    """ai-edge-quantizer's recipe ``name`` as its documentation runs it."""
    from ai_edge_quantizer import quantizer, recipe

    from qhyvit.models.shared.conversion import quiet

    with quiet():
        tool = quantizer.Quantizer(bytearray(float_model), getattr(recipe, name)())
        calibration = None
        if tool.need_calibration:
            file = TfliteFile(float_model)
            ((signature, ends),) = find_interpreter()[0](model_content=float_model).get_signature_list().items()
            samples = [{ends["inputs"][0]: feed_of(file, p, how)[None]} for p in pixels]
            calibration = tool.calibrate({signature: samples})
        result = tool.quantize(calibration).quantized_model
    assert result is not None
    return bytes(result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name of the zoo, or FILE.py:FUNCTION")
    parser.add_argument("--weights", type=Path, required=True)
    add_images(parser)
    parser.add_argument("--count", type=int, default=32, help="calibration images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a build's work directory: its float and integer files too")
    parser.add_argument("--own", action="store_true", help="only the rows of the build's files; others stay")
    parser.add_argument("--out", type=Path, default=RESULTS / "stock.csv")
    return parser


def _quantized(args: argparse.Namespace, shape: Shape, how: Preprocess) -> dict[tuple[str, str], bytes]:
    """Files by export and recipe; the float one comes first of its export."""
    calibration = pixels_of([*data.calibration_images(args.images, args.count, args.seed).values()], shape, how)
    files: dict[tuple[str, str], bytes] = {}
    if not args.own:
        stock = stock_export(args.model, args.weights, shape)
        files |= {("stock export", "float"): stock}
        files |= {("stock export", r): quantize(stock, r, calibration, how) for r in RECIPES}
    if args.work is not None:
        own = (args.work / "float.tflite").read_bytes()
        files |= {("own export", "float"): own}
        if not args.own:
            files |= {("own export", r): quantize(own, r, calibration, how) for r in RECIPES}
        files |= {("own export", "qhyvit"): (args.work / "model.tflite").read_bytes()}
    return files


def run(model: bytes, pixels: np.ndarray, how: Preprocess) -> np.ndarray | None:
    """Logits [N, classes]; None where the file stops: int8 DIV does so where a divisor's code is its zero point."""
    try:
        return logits_of(model, pixels, how)
    except InputError as error:
        print(f"does not run: {error}", flush=True)
        return None


def main() -> None:
    """Command line."""
    parser = _parser()
    args = parser.parse_args()
    if args.own and args.work is None:
        parser.error("--own needs --work, a build's work directory")

    from qhyvit.models.shared.source import open_source

    source = open_source(args.model, args.weights)
    how = default_preprocess({"preprocess": source.preprocess})
    test_how = replace(how, mode=args.resize_mode)
    labelled = [*ranked_sets(args.evaluate, args.labels, source.classes).values()][-1]
    pixels = pixels_of(labelled.paths, source.shape, test_how)
    rows: list[dict[str, Any]] = []
    reference = np.empty(0)
    for (export, recipe), model in _quantized(args, source.shape, how).items():
        looked, logits = census(model), run(model, pixels, test_how)
        reference = reference if logits is None or recipe != "float" else logits
        found = {} if logits is None else shares(count(logits, labelled.truth, reference))
        row = {
            "model": model_name(args.model), "export": export, "recipe": recipe, "images": len(pixels),
            "top1_percent": "", "agreement_percent": "", **found,
            "ops": looked.op_count, "float_tensors": len(looked.float_tensors), "size_bytes": looked.size_bytes,
            "calibration_images": args.count, "seed": args.seed,
        }  # fmt: skip
        print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        rows.append(row)
    write_rows(args.out, rows, ("model", "export", "recipe", "seed"))


if __name__ == "__main__":
    main()
