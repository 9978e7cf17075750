"""The int16 kernels of islands and the QUANTIZE behind them, code by code against the interpreter."""

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema

from qhyvit.graph.ir import Graph
from qhyvit.ops import spec
from qhyvit.sim.int16 import Int16Codes
from qhyvit.tflite import _flat
from qhyvit.tflite.write import write_float
from qhyvit.verify.probe import make_interpreter
from tests._graphs import Builder

SHAPE = (1, 4, 8, 16)
OPS = {
    "ADD": ({}, SHAPE), "SUB": ({}, SHAPE), "MUL": ({}, SHAPE), "ADD of few": ({}, (1, 1, 1, 16)),
    "SUB of few": ({}, (4, 1, 16)), "SUB RELU": ({"fused_activation_function": "RELU"}, SHAPE),
    "BATCH_MATMUL": ({"adj_y": True}, SHAPE), "SUM": ({"keep_dims": True}, None), "TRANSPOSE": ({}, None),
}  # fmt: skip


def _graph(name: str) -> Graph:
    attrs, other = OPS[name]
    op, b = name.split()[0], Builder(np.random.default_rng(0))
    b.tensors = []
    x = b.tensor("x", SHAPE)
    constant = {"SUM": (3,), "TRANSPOSE": (0, 3, 1, 2)}.get(op)
    second = b.integers(*constant) if constant else b.tensor("other", other)
    out = b.add(op, x, second, **attrs)
    inputs = (x,) if constant else (x, second)
    return Graph({t.id: t for t in b.tensors}, tuple(b.nodes), inputs, (out,), floats=frozenset({out}))


def _file(graph: Graph, scales: list[float]) -> bytes:
    """The float file of ``graph`` with its tensors in int16."""
    model = _flat.load_model(write_float(graph))
    floats = [t for t in model.subgraphs[0].tensors if t.type == _flat.TENSOR_TYPE_CODE["FLOAT32"]]
    names = [graph.tensors[t].name for t in (*graph.inputs, *graph.outputs)]
    by_name = dict(zip(names, scales, strict=True))
    for tensor in floats:
        tensor.type = _flat.TENSOR_TYPE_CODE["INT16"]
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [by_name[_flat.text(tensor.name)]], [0]
    for operator in model.subgraphs[0].operators:
        if _flat.op_name(model, operator) in ("ADD", "SUB"):
            operator.builtinOptions.potScaleInt16 = False
    return _flat.pack(model)


@pytest.mark.parametrize("name", OPS)
def test_every_code_is_the_kernels(name):
    rng, graph = np.random.default_rng(0), _graph(name)
    node, parted = graph.nodes[0], 0
    for round_ in range(12):
        s = [float(np.float32(10 ** rng.uniform(-4, 1))) for _ in graph.inputs]
        s = s[:1] * len(s) if round_ % 2 else s
        sizes = [graph.tensors[t].shape for t in graph.inputs]
        codes = [rng.integers(-(2**15), 2**15, size) for size in sizes]
        values = [torch.from_numpy(c * scale)[None] for c, scale in zip(codes, s, strict=True)]
        given = [*values, *(graph.constant(t) for t in node.inputs[len(values) :])]
        real = spec(node.op).forward(given, node.attrs)
        copied = node.op == "TRANSPOSE"
        s_out = s[0] if copied else float(np.float32(float(real.abs().max()) / 2**15 * rng.uniform(0.8, 4)))
        if round_ % 2 and node.op in ("ADD", "SUB", "SUM"):  # ties
            s_out = (8 if node.op == "SUM" else 2) * s[0]
        scales = dict(zip((graph.tensors[t].name for t in (*graph.inputs, *graph.outputs)), [*s, s_out], strict=True))
        mine = Int16Codes(graph, {}, scales).codes(node, given)[0][0]
        interpreter = make_interpreter(_file(graph, [*s, s_out]))
        details = {d["name"]: d["index"] for d in interpreter.get_input_details()}
        for t, c in zip(graph.inputs, codes, strict=True):
            interpreter.set_tensor(details[graph.tensors[t].name], c.astype(np.int16))
        interpreter.invoke()
        found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        assert np.array_equal(mine, found), (np.abs(mine - found).max(), (mine != found).mean())
        parted += int((np.clip(np.rint(real[0].numpy() / s_out), -(2**15), 2**15 - 1) != found).sum())
    assert parted or copied  # else rounding alone would do
