"""The folder that ships: model, manifest, labels, one test image with the output codes that it must give."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qhyvit import files
from qhyvit.errors import CheckFailedError, InputError
from qhyvit.plan import QuantPlan
from qhyvit_device import manifest as manifests
from qhyvit_device.manifest import Input, Manifest, Output, SelfTest
from qhyvit_device.preprocess import COLOURS, Preprocess, load_input, quantize
from qhyvit_device.results import Outputs
from qhyvit_device.runner import TfliteFile

MOST_TEST_CODES = 4096  # of a self test
OUTPUT_NAMES = {"classify": "logits", "multilabel": "logits", "segment": "logits", "embed": "embedding"}
TEST_IMAGE = "test.png"  # lossless: every decoder gives the same pixels
TEST_ARRAY = "test.npy"  # where the input is no picture


def read_label_names(path: Path) -> list[str]:
    """Class names of a file in UTF-8, one a line.

    Raises:
        InputError: unreadable, or another encoding.
    """
    return files.read_text(path, "label names").splitlines()


def label_names(path: Path | None, classes: int) -> list[str]:
    """The names of a file; "class 0", ... without one.

    Raises:
        InputError: see :func:`read_label_names`, or another count than ``classes``.
    """
    if path is None:
        return [f"class {i}" for i in range(classes)]
    names = read_label_names(path)
    if len(names) != classes:
        raise InputError(f"{path} holds {len(names)} names for {classes} classes")
    return names


def _quantization(details: Mapping[str, Any]) -> tuple[str, float | None, int | None]:
    scale, zero_point = details["quantization"]
    dtype = np.dtype(details["dtype"]).name
    return (dtype, None, None) if dtype.startswith("float") else (dtype, float(scale), int(zero_point))


def outputs_of(file: TfliteFile, task: str, names: Sequence[str] | None = None) -> tuple[Output, ...]:
    """What a manifest says of a file's outputs.

    Args:
        names: of each; without them by the task, and numbered where there are several.
    """
    count, name = len(file.outputs), OUTPUT_NAMES.get(task, "values")
    if names is None:
        names = [name, *(f"{name}_{i}" for i in range(1, count))]
    shapes = [tuple(int(n) for n in details["shape"]) for details in file.outputs]
    ends = [_quantization(details) for details in file.outputs]
    return tuple(Output(n, shape, *end) for n, shape, end in zip(names, shapes, ends, strict=True))


def check_judged(path: Path, verified: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    """Refuse files that are not those that a verdict is about; arguments as :func:`check_verdict` has them.

    Raises:
        InputError: the verdict is about other files than these.
    """
    for name, found in hashes.items():
        if verified["files"].get(name) != found:
            raise InputError(f"{path} is about another {name}: run verify again")


def check_verdict(path: Path, verified: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    """Refuse to ship what a verdict does not name, or what failed.

    Args:
        path: of the verdict.
        verified: its content.
        hashes: of the files that are there, by name.

    Raises:
        InputError: see :func:`check_judged`.
        CheckFailedError: a check failed.
    """
    check_judged(path, verified, hashes)
    failed = [check["name"] for check in verified["checks"] if not check["passed"]]
    if failed or not verified["passed"]:
        raise CheckFailedError(f"verification failed: {'; '.join(failed)}; nothing is bundled")


def created_by(command: str, facts: Mapping[str, Any], plan: QuantPlan, verified: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundle says of how it was made; a bundle is made of what passed alone."""
    beside = {k: v for k, v in (verified["against_float"] or {}).items() if k != "each"}  # may be as long as an output
    return {
        "command": command, "method": plan.method, "options": dict(plan.options), "seed": plan.seed,
        "weights": facts["weights"], "weights_sha256": facts.get("weights_sha256"), "folds": len(plan.folds),
        "calibration_images": plan.image_count, "calibration_image_hashes": list(plan.image_hashes),
        "verified": True, "target": dict(verified.get("target") or {}), "against_float": beside or None,
        "oldest_runtime": verified["census"]["oldest_runtime"],
    }  # fmt: skip


def _self_test(file: TfliteFile, name: str, codes: np.ndarray, on_arm64: Sequence[int]) -> SelfTest:
    """What is kept of the codes that all outputs have for the test input in the file ``name``, here and on arm64."""
    step, made_with = -(-len(codes) // MOST_TEST_CODES), f"{file.runtime} {file.runtime_version}"
    kept, kept_on_arm64 = (tuple(int(code) for code in found[::step]) for found in (codes, on_arm64))
    return SelfTest(name, kept, platform.machine(), made_with, kept_on_arm64, step)


def _stored(pixels: np.ndarray) -> tuple[str, bytes]:
    """Name and content of a file that holds one input, [H, W, C]."""
    stream = io.BytesIO()
    if pixels.dtype == np.uint8 and pixels.shape[2] in COLOURS:
        Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(stream, "PNG")
        return TEST_IMAGE, stream.getvalue()
    np.save(stream, pixels)
    return TEST_ARRAY, stream.getvalue()


def write_bundle(
    out: Path, model: bytes, how: Preprocess, test_image: Path, labels: Sequence[str] | None, facts: Mapping[str, Any],
    *, more: Mapping[str, bytes] | None = None, on_arm64: Callable[[np.ndarray], Sequence[int]] | None = None,
    force: bool = False,
) -> Manifest:  # fmt: skip
    """Write a bundle folder; it appears whole or not at all.

    Args:
        out: folder to make.
        model: the integer file.
        how: preprocessing of the model's input.
        test_image: any image, or an array; its preprocessed pixels are stored, so that the self test needs no resize.
        labels: class names; None for a task without.
        facts: ``model``, ``profile``, ``versions``, ``created_by``; ``task`` ("classify" without), ``outputs`` (their
            names; "logits" or the like without).
        more: other files by name, for runtimes that do not take ``model``.
        on_arm64: pixels [H, W, C] -> the codes of all outputs one after the other that arm64 gives, for the self test
            there.

    Raises:
        OutputError: it cannot be written.
    """
    file = TfliteFile(model)
    _, height, width, channels = (int(v) for v in file.input["shape"])
    dtype, scale, zero_point = _quantization(file.input)
    if scale is None or zero_point is None:
        raise InputError("the model's input is not integer")
    pixels = load_input(test_image, (height, width, channels), how)
    task = str(facts.get("task", "classify"))
    outputs = outputs_of(file, task, facts.get("outputs"))
    codes = Outputs(outputs, file.invoke(quantize(pixels, how, scale, zero_point, dtype))).test_codes()
    with files.new_folder(out, force=force) as folder:
        test_file, picture = _stored(pixels)
        content = {"model.tflite": model, test_file: picture, **(more or {})}
        if labels is not None:
            content["labels.txt"] = ("\n".join(labels) + "\n").encode()
        for name, data in content.items():
            (folder / name).write_bytes(data)
        test = _self_test(file, test_file, codes, () if on_arm64 is None else on_arm64(pixels))
        manifest = Manifest(
            model=str(facts["model"]), profile=str(facts["profile"]),
            input=Input(height, width, dtype, scale, zero_point, manifests.channel_order(channels), channels=channels),
            outputs=outputs, preprocess=how, test=test,
            checksums={name: files.sha256(data) for name, data in content.items()},
            labels_file=None if labels is None else "labels.txt", task=task,
            versions=dict(facts["versions"]), created_by=dict(facts["created_by"]),
        )  # fmt: skip
        (folder / manifests.FILE_NAME).write_text(manifests.dumps(manifest))
    return manifest
