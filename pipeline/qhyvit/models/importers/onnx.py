"""An ``.onnx`` file: onnxruntime is its float runtime, and onnx2pytorch makes a module of it, whatever its opset."""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from qhyvit import files
from qhyvit.errors import ExportError, InputError
from qhyvit.models.shared.importer import Dimensions, Imported, Importer, file_dimensions, image_shape, only_input
from qhyvit.models.shared.modules import ChannelsLast, FromChannelsFirst, Reversed
from qhyvit.models.shared.reason import first_line, reason
from qhyvit.models.shared.recorded import recorded
from qhyvit.models.shared.shape import Shape, channels_first
from qhyvit.progress import Log

TOOLS = ("onnx", "onnxruntime", "onnx2pytorch")
OWN_DOMAINS = ("", "ai.onnx")
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
             "ConvInteger", "MatMulInteger")  # fmt: skip
LOG_NOTHING = 4  # onnxruntime's severity of what is fatal


class OnnxModule(nn.Module):
    """An ``.onnx`` in onnxruntime, for images as torch has them."""

    def __init__(self, session: Any, *, channels_last: bool) -> None:
        super().__init__()
        self.session, self.channels_last = session, channels_last
        self.input, self.names = session.get_inputs()[0].name, [o.name for o in session.get_outputs()]

    def forward(self, image: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        """[1, C, H, W] -> [1, ...], or several by name."""
        array = (image.permute(0, 2, 3, 1) if self.channels_last else image).numpy()
        found = [torch.from_numpy(np.asarray(y)) for y in self.session.run(None, {self.input: array})]
        return found[0] if len(found) == 1 else dict(zip(self.names, found, strict=True))


def _open(path: Path, size: tuple[int, int] | None) -> Imported:
    """The file, with a batch of 1 and the sides that were asked for where it takes any."""
    model, name = _load(path), path.name
    _refuse(name, model)
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in held]  # old files list weights as inputs too
    entry = only_input(name, [i.name for i in inputs])
    dims = _dimensions(name, inputs[0])
    shape, last = image_shape(name, entry, [None, *dims[1:]], size, last=False)
    _fix(model, inputs[0], file_dimensions(shape, channels_last=last))
    reference = OnnxModule(_session(name, model), channels_last=last).eval()
    net = _module(name, _folded(name, model))
    return Imported(reference, shape, last, partial(_rewritten, name, FromChannelsFirst(net).eval() if last else net))


def _load(path: Path) -> Any:
    """The file with its weights, those of files beside it too.

    Raises:
        InputError: it cannot be read, is no such file, or one beside it is missing.
    """
    import onnx

    files.read_bytes(path, "model file")
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf raises its own, and onnx what external data is like
        raise InputError(f"{path} is no .onnx file, or lacks the data beside it: {first_line(error)}") from error


def _files(path: Path) -> list[Path]:
    """The file, and those with its weights."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    files.read_bytes(path, "model file")
    try:
        tensors = onnx.load(str(path), load_external_data=False).graph.initializer
        places = [{e.key: e.value for e in t.external_data}["location"] for t in tensors if uses_external_data(t)]
    except Exception:  # it is said when the file is opened
        places = []
    return [path, *(path.parent / place for place in dict.fromkeys(places))]


def _dimensions(name: str, entry: Any) -> list[int | None]:
    """Of the input; None: any.

    Raises:
        ExportError: it is no float32.
    """
    import onnx

    kind = entry.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        found = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise ExportError(f"{name}: input {entry.name!r} is {found}: an image is FLOAT; export the model in float32")
    return [d.dim_value or None for d in kind.shape.dim]


def _fix(model: Any, entry: Any, dims: Dimensions) -> None:
    """Set the input's dimensions; what was known of tensors inside goes."""
    for dim, value in zip(entry.type.tensor_type.shape.dim, dims, strict=True):
        dim.dim_value = value
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")


def _session(name: str, model: Any, optimized: Path | None = None) -> Any:
    """The model in onnxruntime; with ``optimized`` its simplified form is written there, for another converter.

    Raises:
        ExportError: onnxruntime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_NOTHING
    if optimized is not None:  # constants, shapes among them, are computed; no op becomes one of onnxruntime's own
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each kind of refusal
        raise ExportError(f"onnxruntime refuses {name}: {first_line(error)}") from error


def _folded(name: str, model: Any) -> Any:
    """The model with what depends on constants and shapes alone computed, and every name one that Python allows."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        _session(name, model, path)
        found = onnx.load(str(path))
    graph, used = found.graph, {node.domain for node in found.graph.node} | {""}
    kept = [opset for opset in found.opset_import if opset.domain in used]
    del found.opset_import[:]
    found.opset_import.extend(kept)
    names = {"": ""}
    for named in (*graph.input, *graph.output, *graph.initializer):
        named.name = names.setdefault(named.name, f"t{len(names)}")
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"
        for side in (node.input, node.output):
            side[:] = [names.setdefault(t, f"t{len(names)}") for t in side]
    return found


def _refuse(name: str, model: Any) -> None:
    """Say what cannot become an integer file.

    Raises:
        ExportError: ops that the standard does not have, control flow, or codes.
    """
    kinds = {(node.domain, node.op_type): node.name or node.output[0] for node in model.graph.node}
    for (domain, op), place in kinds.items():
        if domain not in OWN_DOMAINS:
            raise ExportError(f"{name} holds the custom op {domain}:{op} (at {place}); export with ops of ONNX alone")
        if op in CONTROL_FLOW:
            raise ExportError(f"{name} holds control flow, {op} (at {place}); export a model that does the same always")
        if op in QUANTIZED:
            raise ExportError(f"{name} is quantized already ({op} at {place}); give the float model it was made from")


def _module(name: str, model: Any) -> nn.Module:
    """A module that takes what the file takes.

    Raises:
        ExportError: onnx2pytorch has no form of an op.
    """
    from onnx2pytorch import ConvertModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: nn.Module = ConvertModel(model).eval()
    except Exception as error:  # each op's converter has its own
        raise ExportError(f"{name} cannot be converted by onnx2pytorch: {first_line(error)}") from error
    return made.requires_grad_(False)


def _rewritten(name: str, net: nn.Module, reference: nn.Module, shape: Shape, log: Log) -> nn.Module:
    """The module for [1, H, W, C], red first as ``reference``."""
    image = torch.rand(channels_first(shape), generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: nn.Module = recorded(net, image)
    except Exception as error:  # what an op of the file raises on what it is fed
        raise ExportError(f"{name} does not run as a module: {reason(error)}") from error
    return ChannelsLast(Reversed(found) if isinstance(reference, Reversed) else found).eval()


IMPORTER = Importer("onnx", "an ONNX model, by onnxruntime and onnx2pytorch", _open, _files, TOOLS, TOOLS)
