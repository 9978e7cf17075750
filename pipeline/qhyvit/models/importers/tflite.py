"""A float ``.tflite``, whoever exported it: its graph is taken as it is, and the interpreter is its float runtime."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qhyvit import files
from qhyvit.errors import ExportError, GraphError
from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.models.shared.importer import Imported, Importer, file_dimensions, image_shape, only_input
from qhyvit.ops import spec
from qhyvit.passes import shortened
from qhyvit.tflite import flatbuffer
from qhyvit.tflite.constants import without_constant_nodes
from qhyvit.tflite.one_image import for_one_image
from qhyvit.tflite.read import read
from qhyvit.tflite.serialize import serialize
from qhyvit_device.interpreter import TfliteFile

NARROW = ("INT4", "INT8", "UINT8", "INT16")  # of codes
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class InterpreterModule(nn.Module):
    """A ``.tflite`` in the interpreter, for images as torch has them."""

    def __init__(self, data: bytes, name: str, names: list[str], *, channels_last: bool) -> None:
        super().__init__()
        self.file, self.names, self.channels_last = TfliteFile(data, name), names, channels_last

    def forward(self, image: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """[1, C, H, W] -> [1, ...], or several by name."""
        array = image.permute(TO_LAST) if self.channels_last else image
        found = [torch.from_numpy(y) for y in self.file.invoke(np.ascontiguousarray(array.numpy()))]
        return found[0] if len(found) == 1 else dict(zip(self.names, found, strict=True))


def _open(path: Path, size: tuple[int, int] | None) -> Imported:
    """The file, checked; its batch and sides are set where they may be any."""
    name, data = path.name, files.read_bytes(path, "model file")
    model = flatbuffer.load_model(data)
    with flatbuffer.refusing():
        entry, dims = _entry(name, model)
        shape, last = image_shape(name, entry, dims, size, last=True)
        names = _output_names(model)
    if quantized := _codes(model):
        raise ExportError(f"{name} is quantized already ({quantized}): give the float file that it was made from")
    try:
        data = for_one_image(data, file_dimensions(shape, channels_last=last))
        graph = read(without_constant_nodes(data))
    except GraphError as error:
        raise ExportError(f"{name}: {error}; export it without them, in float32 and for a fixed input") from error
    reference = InterpreterModule(data, name, names, channels_last=last).eval()
    return Imported(reference, shape, last, tflite=partial(_tflite, graph, not last))


def _entry(name: str, model: Any) -> tuple[str, list[int | None]]:
    """Name and dimensions of the one input.

    Raises:
        ExportError: there are several, or it is no float32.
    """
    subgraph = model.subgraphs[0]
    inputs = [subgraph.tensors[t] for t in subgraph.inputs]
    entry = only_input(name, [flatbuffer.text(t.name) for t in inputs])
    dtype = flatbuffer.TENSOR_TYPE[inputs[0].type]
    if dtype != "FLOAT32":
        known = "it is quantized already" if dtype in NARROW else "an image is float32"
        raise ExportError(f"{name}: input {entry!r} is {dtype}: {known}; give the float32 file")
    sizes = inputs[0].shapeSignature if inputs[0].shapeSignature is not None else inputs[0].shape
    dims = [None if d <= 0 else int(d) for d in (sizes if sizes is not None else [])]
    return entry, [None, *dims[1:]]  # whatever the batch is, it becomes 1


def _codes(model: Any) -> str:
    """Name and type of a tensor of codes, "" where there is none."""
    for tensor in model.subgraphs[0].tensors:
        dtype, found = flatbuffer.TENSOR_TYPE[tensor.type], tensor.quantization
        if dtype in NARROW and found is not None and found.scale is not None and len(found.scale):
            return f"{flatbuffer.text(tensor.name)} is {dtype}"
    return ""


def _output_names(model: Any) -> list[str]:
    """Names of the outputs: the signature's, else those of the tensors."""
    subgraph = model.subgraphs[0]
    signed = {int(o.tensorIndex): flatbuffer.text(o.name) for s in model.signatureDefs or [] for o in s.outputs or []}
    return [signed.get(int(t)) or flatbuffer.text(subgraph.tensors[t].name) for t in subgraph.outputs]


def _tflite(graph: Graph, channels_first: bool, is_bgr: bool, turns_maps: bool) -> bytes:
    """The file with its input as [1, H, W, C], red first; with ``turns_maps`` outputs of rank 4 have channels last."""
    if channels_first:
        graph = _front(graph, "TRANSPOSE", TO_FIRST)
    if is_bgr:
        graph = _front(graph, "REVERSE_V2", (3,))
    for output in dict.fromkeys(graph.outputs if turns_maps else ()):
        if len(graph.tensors[output].shape) == 4:
            graph = _behind(graph, output)
    return serialize(shortened(graph))


def _moved(shape: tuple[int, ...], order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in order)


def _front(graph: Graph, op: str, values: tuple[int, ...]) -> Graph:
    """The graph with an op between its input, which keeps its name, and all that read it."""
    (old,) = graph.inputs
    tensor = graph.tensors[old]
    inside = replace(tensor, name=f"{tensor.name}/{op.lower()}")
    graph = replace(graph, tensors={**graph.tensors, old: inside})
    shape = _moved(tensor.shape, TO_LAST) if op == "TRANSPOSE" else tensor.shape
    graph, new = edit.add_tensor(graph, tensor.name, shape, tensor.dtype)
    graph, constant = edit.add_tensor(graph, f"{inside.name}:in1", (len(values),), "INT32", np.array(values, np.int32))
    node = Node(op, spec(op).attrs(), (new, constant), (old,))
    return replace(graph, nodes=(node, *graph.nodes), inputs=(new,))


def _behind(graph: Graph, old: int) -> Graph:
    """The graph with the channels of a map that it gives last; what reads the map inside reads it as it was."""
    tensor = graph.tensors[old]
    inside = replace(tensor, name=f"{tensor.name}/channels_first")
    graph = replace(graph, tensors={**graph.tensors, old: inside})
    graph, new = edit.add_tensor(graph, tensor.name, _moved(tensor.shape, TO_LAST), tensor.dtype)
    graph, order = edit.add_tensor(graph, f"{tensor.name}:in1", (4,), "INT32", np.array(TO_LAST, np.int32))
    node = Node("TRANSPOSE", spec("TRANSPOSE").attrs(), (old, order), (new,))
    outputs = tuple(new if t == old else t for t in graph.outputs)
    return replace(graph, nodes=(*graph.nodes, node), outputs=outputs)


IMPORTER = Importer("tflite", "a float .tflite of any exporter", _open)
