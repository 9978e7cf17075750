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
from qhyvit_device.runner import TfliteFile

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
    return {
        "command": command, "method": plan.method, "options": dict(plan.options), "seed": plan.seed,
        "weights": facts["weights"], "weights_sha256": facts.get("weights_sha256"), "folds": len(plan.folds),
        "calibration_images": plan.image_count, "calibration_image_hashes": list(plan.image_hashes),
        "verified": True, "measure": plan.measure, "against_float": verified["against_float"],
        "oldest_runtime": verified["census"]["oldest_runtime"],
    }  # fmt: skip


def _stored(pixels: np.ndarray) -> tuple[str, bytes]:
    """Name and content of a file that holds one input, [H, W, C]."""
    stream = io.BytesIO()
    if pixels.dtype == np.uint8 and pixels.shape[2] in COLOURS:
        Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]).save(stream, "PNG")
        return TEST_IMAGE, stream.getvalue()
    np.save(stream, pixels)
    return TEST_ARRAY, stream.getvalue()


def write_bundle(
    out: Path, model: bytes, how: Preprocess, test_image: Path, labels: Sequence[str], facts: Mapping[str, Any],
    *, on_arm64: Callable[[np.ndarray], Sequence[int]] | None = None, force: bool = False,
) -> Manifest:  # fmt: skip
    """Write a bundle folder; it appears whole or not at all.

    Args:
        out: folder to make.
        model: the integer file.
        how: preprocessing of the model's input.
        test_image: any image, or an array; its preprocessed pixels are stored, so that the self test needs no resize.
        labels: class names.
        facts: ``model``, ``profile``, ``versions``, ``created_by``.
        on_arm64: pixels [H, W, C] -> the output codes that arm64 gives, for the self test there.

    Raises:
        OutputError: it cannot be written.
    """
    file = TfliteFile(model)
    _, height, width, channels = (int(v) for v in file.input["shape"])
    dtype, scale, zero_point = _quantization(file.input)
    out_dtype, out_scale, out_zero = _quantization(file.output)
    if scale is None or zero_point is None:
        raise InputError("the model's input is not integer")
    pixels = load_input(test_image, (height, width, channels), how)
    codes = file.run(quantize(pixels, how, scale, zero_point, dtype))
    with files.new_folder(out, force=force) as folder:
        test_file, picture = _stored(pixels)
        content = {
            "model.tflite": model, "labels.txt": ("\n".join(labels) + "\n").encode(), test_file: picture,
        }  # fmt: skip
        for name, data in content.items():
            (folder / name).write_bytes(data)
        test = SelfTest(
            test_file, tuple(int(c) for c in codes), platform.machine(), f"{file.runtime} {file.runtime_version}",
            () if on_arm64 is None else tuple(int(c) for c in on_arm64(pixels)),
        )  # fmt: skip
        manifest = Manifest(
            model=str(facts["model"]), profile=str(facts["profile"]),
            input=Input(height, width, dtype, scale, zero_point, manifests.channel_order(channels), channels=channels),
            output=Output(len(labels), out_dtype, out_scale, out_zero), preprocess=how, test=test,
            checksums={name: files.sha256(data) for name, data in content.items()},
            versions=dict(facts["versions"]), created_by=dict(facts["created_by"]),
        )  # fmt: skip
        (folder / manifests.FILE_NAME).write_text(manifests.dumps(manifest))
    return manifest
