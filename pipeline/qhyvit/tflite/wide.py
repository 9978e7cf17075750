"""int8 codes behind int16 kernels: the scale that the plan gives them.

ai-edge-quantizer derives the int8 scale behind an int16 softmax from what the kernel prescribes, [-1, 1], whatever
range it is told; the QUANTIZE that makes the codes takes any scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qhyvit.errors import PlanError
from qhyvit.graph.ir import Graph
from qhyvit.plan import TensorQuant
from qhyvit.tflite import _flat
from qhyvit.tflite.legal import groups


def rescale(data: bytes, graph: Graph, quants: Mapping[str, TensorQuant]) -> bytes:
    """The file with the plan's scales behind every int16 kernel; unchanged where there is none.

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
                _set(tensors[i], quants[name])
    return _flat.pack(model)


def _set(tensor: Any, quant: TensorQuant) -> None:
    tensor.quantization.scale, tensor.quantization.zeroPoint = list(quant.scale), list(quant.zero_point)
