"""Islands of int16: what ai-edge-quantizer left float between a DEQUANTIZE and a QUANTIZE becomes int16.

Every tensor there has 16 bits, a zero point of 0 and a scale of the plan's (:attr:`qhyvit.plan.QuantPlan.int16`). A
constant's is the one that its largest value needs, and int8 codes become int16 ones without a rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from qhyvit.affine import INT16_TOP, STEPS_OF_INT8, int16_scale
from qhyvit.errors import PlanError
from qhyvit.graph.ir import Graph
from qhyvit.ops import spec
from qhyvit.ops._spec import Tied
from qhyvit.plan import TensorQuant
from qhyvit.tflite import _flat
from qhyvit.tflite.int16_roots import HEADROOM, limits


def constant_scale(data: np.ndarray) -> float:
    """The scale of a constant in an island."""
    return int16_scale(float(np.abs(data).max(initial=0.0)))


def constant_codes(data: np.ndarray) -> np.ndarray:
    """int16 codes of a constant, of any shape."""
    return np.clip(np.rint(data.astype(np.float64) / constant_scale(data)), -INT16_TOP, INT16_TOP).astype(np.int16)


def scales(graph: Graph, quants: Mapping[str, TensorQuant], peaks: Mapping[int, float]) -> dict[str, float]:
    """Scales of all that the islands' nodes write, by name.

    Args:
        ``peaks``: largest absolute value of each of those tensors, by id.
    """
    found: dict[str, float] = {}
    limit_of = limits(graph)
    for node in graph.nodes:
        if not graph.in_float(node):
            continue
        source, contract = graph.tensors[node.inputs[0]], spec(node.op).out
        for t in node.outputs:
            if isinstance(contract, Tied) and not contract.rounds:  # the kernel copies codes
                scale = found[source.name] if source.name in found else quants[source.name].scale[0] / STEPS_OF_INT8
            else:
                scale = int16_scale(limit_of[t] if t in limit_of else HEADROOM * peaks[t])
            found[graph.tensors[t].name] = scale
    return found


def in_int16(data: bytes, scales_of: Mapping[str, float]) -> bytes:
    """The file with its float tensors, which all lie in islands, in int16.

    Raises:
        PlanError: a float tensor has no scale in the plan.
    """
    model = _flat.load_model(data)
    _flat.embed(model, data)
    subgraph = model.subgraphs[0]
    kind = _flat.TENSOR_TYPE_CODE
    floats = {i for i, t in enumerate(subgraph.tensors) if t.type == kind["FLOAT32"]}
    entries = {int(o.outputs[0]): o for o in subgraph.operators if _flat.op_name(model, o) == "DEQUANTIZE"}
    for i in floats:
        tensor = subgraph.tensors[i]
        name, values = _flat.text(tensor.name), _flat.constant(model, tensor)
        if values is not None:
            scale = constant_scale(values)
            _flat.hold(model, tensor, constant_codes(values))
        elif i in entries:
            scale = float(subgraph.tensors[entries[i].inputs[0]].quantization.scale[0]) / STEPS_OF_INT8
        elif name in scales_of:
            scale = scales_of[name]
        else:
            raise PlanError(f"{name!r} is float, and the plan has no int16 scale for it")
        tensor.type = kind["INT16"]
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [0]
    for operator in subgraph.operators:
        if floats.intersection(int(t) for t in operator.outputs):
            _takes_int16(model, operator)
    return _flat.pack(model)


def _takes_int16(model: Any, operator: Any) -> None:
    """What an op's code and options have to say where it writes int16."""
    op = _flat.op_name(model, operator)
    if op == "DEQUANTIZE":
        operator.opcodeIndex = _flat.code_index(model, "QUANTIZE")
        operator.builtinOptionsType, operator.builtinOptions = 0, None
    elif op in ("ADD", "SUB"):
        operator.builtinOptions.potScaleInt16 = False  # scales are no powers of two
