"""A ``.tflite`` in TOSA's reference model: Arm's converter, serializer and interpreter, each a program of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

VENV = Path(os.environ.get("TOSA_VENV", Path(__file__).parents[2] / ".venv-tosa"))


class NoFormError(Exception):
    """TOSA has no form of the op, or its result is not prescribed; the message names the program that says so."""


def _run(folder: Path, program: str, *words: str) -> None:
    done = subprocess.run([VENV / "bin" / program, *words], capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise NoFormError(f"{program}: {(done.stdout + done.stderr)[-300:]}")


def in_tosa(folder: Path, model: bytes, fed: Sequence[np.ndarray], outputs: int) -> list[np.ndarray]:
    """What the reference model computes of one set of operands.

    Raises:
        NoFormError: it can't.
    """
    schema = next(VENV.glob("lib/python*/site-packages/bin/tosa.fbs"))
    (folder / "m.tflite").write_bytes(model)
    _run(folder, "tosa-converter-for-tflite", "m.tflite", "-o", "m.mlirbc")
    _run(folder, "tosa-opt", "m.mlirbc", "--tosa-serialize=tosa-flatbuffer-filename=m.tosa", "-o", "/dev/null")
    for i, x in enumerate(fed):
        np.save(folder / f"in{i}.npy", np.ascontiguousarray(x))
    ends = [
        f"--{which}_{what}={','.join(name.format(i) for i in range(count))}"
        for which, count, title, place in (("ifm", len(fed), "TosaInput_{}", "in{}.npy"),
                                           ("ofm", outputs, "TosaOutput_{}", "out{}.npy"))
        for what, name in (("name", title), ("file", place))
    ]  # fmt: skip
    _run(folder, "tosa_reference_model", "--tosa_file=m.tosa", f"--operator_fbs={schema}", "--tosa_level=NONE", *ends)
    return [np.load(folder / f"out{i}.npy") for i in range(outputs)]
