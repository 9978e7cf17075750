"""A model for one image: the batch is 1, and every tensor has the shape that the interpreter finds for it then."""

from __future__ import annotations

from collections.abc import Sequence

from qhyvit.errors import GraphError
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.plain import plain_run
from qhyvit.tflite.read import read


def for_one_image(data: bytes, shape: Sequence[int]) -> bytes:
    """The same model for an input of ``shape``; unchanged where it says so already.

    Raises:
        GraphError: it holds ops that are not supported, or does not run at that shape.
    """
    model = flatbuffer.load_model(data)
    subgraph = model.subgraphs[0]
    if all(_is_fixed(t) for t in subgraph.tensors) and _shape(subgraph.tensors[subgraph.inputs[0]]) == tuple(shape):
        return data
    flatbuffer.embed(model, data)
    try:
        interpreter = plain_run(data, shape)  # only behind a run are shapes known that are computed
    except (RuntimeError, ValueError) as error:
        read(data)  # names the ops that neither the interpreter nor we know
        said = next(iter(str(error).splitlines()), "")
        raise GraphError(f"the model does not run on {list(shape)} ({said})") from error
    found = {int(t["index"]): [int(n) for n in t["shape"]] for t in interpreter.get_tensor_details()}
    for index, tensor in enumerate(subgraph.tensors):
        tensor.shape, tensor.shapeSignature = found.get(index, tensor.shape), None
    return flatbuffer.pack(model)


def _shape(tensor: object) -> tuple[int, ...]:
    shape = getattr(tensor, "shape", None)
    return tuple(int(n) for n in shape) if shape is not None else ()


def _is_fixed(tensor: object) -> bool:
    signature = getattr(tensor, "shapeSignature", None)
    return all(n > 0 for n in _shape(tensor)) and (signature is None or all(n > 0 for n in signature))
