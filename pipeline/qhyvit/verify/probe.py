"""Runs an integer ``.tflite`` so that every tensor's codes can be read, with the kernels that a user gets."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from qhyvit.errors import InputError
from qhyvit.tflite import flatbuffer
from qhyvit.verify.micro import run_micro

MICRO = "tflm"  # beside the runtimes that have an interpreter in this process


def make_interpreter(data: bytes, runtime: str = "litert", threads: int = 1, *, all_tensors: bool = False) -> Any:
    """An interpreter over a file's bytes: ``litert``, or ``tensorflow``'s own (the ``reference`` extra).

    With ``all_tensors`` each op becomes its own delegate partition, so that XNNPACK computes it and its output
    can still be read.

    Raises:
        InputError: unknown runtime, or tensorflow is not installed.
    """
    options: dict[str, Any] = {"experimental_preserve_all_tensors": True} if all_tensors else {}
    if runtime == "litert":
        from ai_edge_litert.interpreter import Interpreter

        if all_tensors:
            options["experimental_disable_delegate_node_fusion"] = True
    elif runtime == "tensorflow":
        try:
            from tensorflow.lite.python.interpreter import Interpreter
        except ImportError as error:
            raise InputError(f"tensorflow cannot be used ({error}); pip install 'qhyvit[reference]'") from error
    else:
        raise InputError(f"unknown runtime {runtime!r}; known: litert, tensorflow")
    with warnings.catch_warnings():  # about the memory that keeping all tensors takes: it is wanted here
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(model_content=data, num_threads=threads, **options)
    interpreter.allocate_tensors()
    return interpreter


def tensors(model: bytes, images: Iterable[np.ndarray], runtime: str = "litert") -> Iterator[dict[str, np.ndarray]]:
    """What a runtime computes, all activations by name, image by image; codes [1, *shape] go in.

    Raises:
        InputError: see :func:`make_interpreter` and :func:`qhyvit.verify.micro.run_micro`.
    """
    if runtime != MICRO:
        yield from every_tensor(make_interpreter(model, runtime, all_tensors=True), images)
        return
    names = [flatbuffer.text(t.name) for t in flatbuffer.load_model(model).subgraphs[0].tensors]
    for image in images:  # one at a time: all tensors of all images take much memory
        (found,) = run_micro(model, [image], everything=True).tensors
        yield {names[t]: data for t, data in found.items()}


def outputs(model: bytes, images: Sequence[np.ndarray], runtime: str = "litert") -> np.ndarray:
    """Codes of all outputs one after the other, [N, outputs] int64, for input codes [1, *shape] each.

    Raises:
        InputError: see :func:`tensors`.
    """
    if runtime == MICRO:
        return run_micro(model, images).outputs
    interpreter = make_interpreter(model, runtime)
    return np.stack([run(interpreter, codes) for codes in images]).astype(np.int64)


def run(interpreter: Any, codes: np.ndarray) -> np.ndarray:
    """All outputs of one image, one after the other: [1, H, W, C] codes in, [outputs] codes out."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], codes)
    interpreter.invoke()
    return np.concatenate([interpreter.get_tensor(d["index"]).ravel() for d in interpreter.get_output_details()])


def every_tensor(interpreter: Any, images: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Codes of all activations by name, image by image."""
    details = [d for d in interpreter.get_tensor_details() if d["index"] >= 0 and d["name"]]
    for codes in images:
        run(interpreter, codes)
        found = {}
        for d in details:
            try:
                found[d["name"]] = np.array(interpreter.get_tensor(d["index"]))
            except ValueError:  # a tensor that lives inside a partition only
                continue
        yield found
