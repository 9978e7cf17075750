"""Runs a file in TensorFlow Lite Micro's interpreter, as a process of its own: a kernel that aborts ends only that.

    python micro_child.py MODEL INPUTS.npy OUT.npz [all]

INPUTS is [N, 1, *shape]. OUT holds ``I/T`` of image I: T is the tensor's number with ``all``, else ``output/K``. The
recording allocator prints what the arena needs on standard error.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

SMALLEST, LARGEST = 1 << 22, 1 << 30  # bytes of an arena


def interpreter(runtime: Any, model: bytes, *, everything: bool) -> Any:
    """One with an arena that is large enough."""
    kind = runtime.InterpreterConfig
    config = kind.kPreserveAllTensors if everything else kind.kAllocationRecording
    size = SMALLEST
    while True:
        try:
            return runtime.Interpreter.from_bytes(model, arena_size=size, intrepreter_config=config)
        except RuntimeError:
            if size >= LARGEST:
                raise
            size *= 4


def main(model: str, inputs: str, out: str, *more: str) -> None:
    """See above."""
    from tflite_micro.python.tflite_micro import runtime

    with open(model, "rb") as file:
        data = file.read()
    images = np.load(inputs)
    subgraph = runtime.schema_fb.Model.GetRootAs(data, 0).Subgraphs(0)
    made = interpreter(runtime, data, everything=bool(more))
    if not more:
        made.print_allocations()
    found: dict[str, Any] = {}
    for i, image in enumerate(images):
        made.set_input(image, 0)
        made.invoke()
        for k in range(subgraph.OutputsLength()):
            found[f"{i}/output/{k}"] = np.array(made.get_output(k))
        if more:
            numbers = [t for n in range(subgraph.OperatorsLength()) for t in subgraph.Operators(n).OutputsAsNumpy()]
            for t in {int(subgraph.Inputs(0)), *map(int, numbers)}:
                found[f"{i}/{t}"] = np.array(made.GetTensor(t, 0)["tensor_data"])
    np.savez(out, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
