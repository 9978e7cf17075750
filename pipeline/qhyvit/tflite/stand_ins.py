"""Ops with a right int8 kernel that ai-edge-quantizer does not know: it sees another op of the same contract.

The file is handed over with the stand-ins (:attr:`qhyvit.ops._spec.OpSpec.stand_in`) and gets its own ops back.
"""

from __future__ import annotations

from qhyvit.graph.ir import Graph
from qhyvit.ops import spec
from qhyvit.tflite import _flat


def _renamed(data: bytes, names: dict[str, str]) -> bytes:
    """The file with other op codes, by the name of the ops' first outputs."""
    model = _flat.load_model(data)
    _flat.embed(model, data)
    graph = model.subgraphs[0]
    for operator in graph.operators:
        name = _flat.text(graph.tensors[operator.outputs[0]].name)
        if name in names:
            operator.opcodeIndex = _flat.code_index(model, names[name])
    return _flat.pack(model)


def _concerned(graph: Graph) -> dict[str, str]:
    """Name of the output -> op, of the nodes that need a stand-in."""
    return {
        graph.tensors[n.outputs[0]].name: n.op
        for n in graph.nodes if spec(n.op).stand_in and not graph.is_float(n)
    }  # fmt: skip


def put(data: bytes, graph: Graph) -> bytes:
    """The float file with stand-ins; unchanged where none is needed."""
    ops = _concerned(graph)
    return _renamed(data, {name: spec(op).stand_in for name, op in ops.items()}) if ops else data


def take_back(data: bytes, graph: Graph) -> bytes:
    """The quantized file with its own ops; unchanged where there was no stand-in."""
    ops = _concerned(graph)
    return _renamed(data, ops) if ops else data
