"""A bundle as C++ source for TensorFlow Lite for Microcontrollers: the file as an array, and all to run it by.

``model.h`` has shapes, scales, the arena's size and a resolver with the ops that the file has; ``model.cc`` the arrays;
``main.cc`` an example that runs the self test. The test's codes are those of the micro interpreter itself.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.tflite import flatbuffer
from qhyvit.verify.micro import run_micro
from qhyvit_device.runner import Model

SLACK = 5  # % of the arena that is left free
A_LINE = 24  # numbers
# names of the resolver's methods that are not the op's own words
METHODS = {"BATCH_MATMUL": "BatchMatMul", "PADV2": "PadV2", "SELECT_V2": "SelectV2", "REVERSE_V2": "ReverseV2"}


@dataclass(frozen=True)
class CSource:
    """What was written: the arena with its room and the model, in bytes, and the ops' methods of the resolver."""

    arena_bytes: int
    model_bytes: int
    ops: tuple[str, ...]


def method_of(op: str) -> str:
    """The resolver's method that registers an op: CONV_2D is AddConv2D."""
    return "Add" + METHODS.get(op, "".join(part.capitalize() for part in op.split("_")).replace("2d", "2D"))


def ops_of(model: bytes) -> list[str]:
    """Builtin names of the ops of a file, each once, in order."""
    found = flatbuffer.load_model(model)
    return sorted({flatbuffer.op_name(found, operator) for operator in found.subgraphs[0].operators})


def _numbers(values: Iterable[int]) -> str:
    listed = [str(int(v)) for v in values]
    lines = (",".join(listed[i : i + A_LINE]) for i in range(0, len(listed), A_LINE))
    return ",\n".join(lines)


def c_string(text: str) -> str:
    """A C string; what is no printable ASCII in octal bytes."""
    parts = (chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in text.encode())
    return '"' + "".join(parts) + '"'


def write_c_source(bundle: Path, out: Path, command: str, *, force: bool = False) -> CSource:
    """Write the folder ``out``; it appears whole or not at all.

    Raises:
        InputError: the bundle is none, is for another target, or the micro interpreter refuses its file.
        OutputError: it cannot be written.
    """
    files.check_free(out, force=force, ours=_is_ours)
    model = Model.load(bundle)
    manifest, content = model.manifest, files.read_bytes(bundle / model.manifest.model_file, "model")
    if manifest.input.dtype != "int8" or any(o.dtype != "int8" for o in manifest.outputs):
        raise InputError(f"{bundle}: inputs and outputs are not int8; build it with --target tflm")
    codes = _test_codes(model)
    ran = run_micro(content, [codes])
    arena = -(-ran.arena_bytes * (100 + SLACK) // 100 // 1024) * 1024
    ops = tuple(method_of(op) for op in ops_of(content))
    facts = {
        "model": manifest.model, "command": command, "slack": SLACK, "arena": arena, "input": manifest.input,
        "mean": manifest.preprocess.mean, "std": manifest.preprocess.std, "outputs": manifest.outputs, "ops": ops,
        "decides": manifest.task == "classify" and manifest.classes > 1,
        "labels": [c_string(name) for name in model.labels], "test_input": codes.ravel(), "test_output": ran.outputs[0],
        "model_bytes": _numbers(content), "test_input_text": _numbers(codes.ravel()),
        "test_output_text": _numbers(ran.outputs[0]),
    }  # fmt: skip
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("qhyvit", "shipped_templates"), autoescape=False, keep_trailing_newline=True,
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    with files.new_folder(out, force=force, ours=_is_ours) as folder:
        for name in ("model.h", "model.cc", "main.cc"):
            (folder / name).write_text(templates.get_template(f"{name}.j2").render(facts))
        about = {"model": manifest.model, "arena_bytes": arena, "model_bytes": len(content), "ops": ops}
        (folder / "model.json").write_text(json.dumps(about, indent=1) + "\n")
    return CSource(arena, len(content), ops)


def _is_ours(folder: Path) -> bool:
    """Whether a folder was written here, and may be replaced."""
    return files.only(folder, ("model.h", "model.cc", "main.cc", "model.json"))


def _test_codes(model: Model) -> np.ndarray:
    """Input codes of the self test, [1, H, W, C] int8."""
    found: np.ndarray = model.prepare(io.BytesIO(model.picture), mode="squash")
    return found.reshape(1, *model.manifest.input.shape)
