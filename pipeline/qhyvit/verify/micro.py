"""TensorFlow Lite Micro's interpreter, in a process of its own: what it computes, and the memory that it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit.errors import InputError

CHILD = Path(__file__).with_name("micro_child.py")
NOISE = re.compile(r"^\s*$|failed to invoke|Failed to get registration|Failed to allocate")  # behind the reason


@dataclass(frozen=True)
class MicroRun:
    """What the interpreter gave.

    Args:
        outputs: codes of all outputs one after the other, [N, outputs].
        tensors: of each image by the tensor's number in the file; empty where they were not asked for.
        arena_bytes: what it allocates of the arena; 0 where tensors were kept, which takes more.
    """

    outputs: NDArray[np.int64]
    tensors: Sequence[dict[int, NDArray[Any]]]
    arena_bytes: int


def run_micro(model: bytes, codes: Sequence[NDArray[Any]], *, everything: bool = False) -> MicroRun:
    """Run a file on input codes [1, *shape] each; ``everything``: with all that its ops write.

    Raises:
        InputError: the package is missing, or the interpreter refuses the file; with its reason.
    """
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        names = [str(place / name) for name in ("model.tflite", "inputs.npy", "out.npz")]
        (place / "model.tflite").write_bytes(model)
        np.save(names[1], np.stack(codes))
        command = [sys.executable, str(CHILD), *names, *(["all"] if everything else [])]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise InputError(f"TensorFlow Lite Micro cannot run the file: {_reason(done.stderr, done.returncode)}")
        with np.load(names[2]) as found:
            kept = {name: found[name] for name in found.files}
    total = re.search(r"Arena allocation total (\d+) bytes", done.stderr)
    rows, tensors = [], []
    for i in range(len(codes)):
        mine = {name.split("/", 1)[1]: data for name, data in kept.items() if name.startswith(f"{i}/")}
        ends = [mine.pop(f"output/{k}").ravel() for k in range(sum(name.startswith("output/") for name in mine))]
        rows.append(np.concatenate(ends).astype(np.int64))
        tensors.append({int(name): data for name, data in mine.items()})
    return MicroRun(np.stack(rows), tensors if everything else (), int(total[1]) if total else 0)


def _reason(said: str, code: int) -> str:
    if "No module named" in said:
        return "the package is not installed; pip install 'qhyvit[tflm]'"
    lines = [line.strip() for line in said.splitlines() if not NOISE.search(line)]
    telling = [line for line in lines if "Error" not in line and not line.startswith(("File", "Traceback"))]
    return next((line for line in telling if "." in line or "op" in line), f"it ended with code {code}")[:200]
