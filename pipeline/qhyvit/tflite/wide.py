"""int16 kernels in the file: int8 codes in, int16 codes out on the kernel's own grid, and any int8 scale behind.

ai-edge-quantizer puts a QUANTIZE to int16 in front of an int16 softmax, whose kernel then takes five times as long as
the one that reads int8, on a grid half as fine; and it derives the int8 scale behind from what the kernel prescribes,
[-1, 1], whatever range it is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhyvit.errors import PlanError
from qhyvit.graph.ir import Graph
from qhyvit.ops import spec
from qhyvit.plan import TensorQuant
from qhyvit.tflite import _flat
from qhyvit.tflite.legal import groups


def rescale(data: bytes, graph: Graph, quants: Mapping[str, TensorQuant]) -> bytes:
    """The file with such kernels, and the plan's scales behind them; unchanged where there is none.

    Raises:
        PlanError: no QUANTIZE makes int8 codes of an int16 tensor.
    """
    if not graph.wide:
        return data
    model = _flat.load_model(data)
    _flat.embed(model, data)
    tensors, operators = model.subgraphs[0].tensors, model.subgraphs[0].operators
    index = {_flat.text(t.name): i for i, t in enumerate(tensors)}
    for group in groups(graph):
        for t in graph.wide.intersection(group.members):
            name = graph.tensors[t].name
            narrow = [
                int(o.outputs[0]) for o in operators
                if _flat.op_name(model, o) == "QUANTIZE" and int(o.inputs[0]) == index[name]
            ]  # fmt: skip
            if not narrow:
                raise PlanError(f"{name!r} is int16 and nothing makes int8 codes of it")
            copies = [index[graph.tensors[m].name] for m in group.members if m != t]
            for i in (*narrow, *copies):
                _set(tensors[i], quants[name].scale, quants[name].zero_point)
            node = graph.producer(t)
            assert node is not None
            grid = spec(node.op).wide
            assert grid is not None
            _set(tensors[index[name]], (grid.scale,), (grid.zero_point,))
            _read_int8(model, index[name])
    return _flat.pack(model)


def _read_int8(model: Any, output: int) -> None:
    """Let the kernel that writes ``output`` read what the QUANTIZE in front of it reads; that one goes."""
    operators = model.subgraphs[0].operators
    kernel = next(o for o in operators if output in (int(t) for t in o.outputs))
    source = int(kernel.inputs[0])
    before = next(o for o in operators if source in (int(t) for t in o.outputs))
    if _flat.op_name(model, before) != "QUANTIZE":
        raise PlanError(f"{_flat.text(model.subgraphs[0].tensors[output].name)!r}: nothing makes its kernel's int16")
    kernel.inputs = [int(before.inputs[0]), *(int(t) for t in kernel.inputs[1:])]
    if not any(source in (int(t) for t in o.inputs) for o in operators):
        operators.remove(before)


def _set(tensor: Any, scale: tuple[float, ...], zero_point: tuple[int, ...]) -> None:
    tensor.quantization.scale, tensor.quantization.zeroPoint = list(scale), list(zero_point)
