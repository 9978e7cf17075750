"""The typed graph: every tensor of the file with its dtype and quantization, every conversion a node.

A tensor of the float graph may be held in several types, each made once: by the node that writes it, or by a QUANTIZE
or DEQUANTIZE behind that. What int8 readers see has the plan's quantization.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qhyvit.affine import INT16_TOP, STEPS_OF_INT8, int16_scale
from qhyvit.errors import PlanError
from qhyvit.graph.ir import FLOAT, INT4, INT8, INT16, Graph, Node, Quantization, Tensor
from qhyvit.lowering.constants import constant_codes, on_grid
from qhyvit.lowering.contracts import check_plan
from qhyvit.lowering.int4 import takes_int4
from qhyvit.lowering.tables import table_of
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import NoAttrs, Tied
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.targets import Target, target
from qhyvit.tflite.serialize import serialize

INT32_TOP, INT8_LOW = 2**31 - 1, -128
NAMES = {INT8: "int8", INT16: "int16", FLOAT: "float"}


@dataclass(frozen=True)
class Lowered:
    """A typed graph, and for each activation of the float graph the name of the tensor that holds its values.

    Args:
        graph: the typed graph.
        held: name in the float graph -> name in the typed one, of the int8 codes where there are any.
    """

    graph: Graph
    held: dict[str, str]


def lower(graph: Graph, plan: QuantPlan) -> Lowered:
    """The typed graph of ``graph`` as ``plan`` says.

    Raises:
        PlanError: the plan does not fit the graph, or TFLite cannot express it.
    """
    check_plan(graph, plan)
    return _Lowering(graph, plan, target(plan.target)).run()


def quantized_file(graph: Graph, plan: QuantPlan) -> bytes:
    """The ``.tflite`` of ``graph`` as ``plan`` says.

    Raises:
        PlanError: see :func:`lower`.
    """
    return serialize(lower(graph, plan).graph)


def _quantization(quant: TensorQuant, shift: int = 0) -> Quantization:
    axis = quant.axis if len(quant.scale) > 1 else None
    return Quantization(quant.scale, quant.zero_point[0] + shift, axis)


def shifts(quant: TensorQuant) -> list[int]:
    """What is added to the zero point of the op's own output, and of what each QUANTIZE but the last makes of it.

    A tensor of fewer codes than int8's is clamped by the saturation of QUANTIZE ops: its op writes with a zero point
    that puts the highest of them at 127; a QUANTIZE of the same scale moves them down until the lowest is at -128. A
    matrix product's right operand leaves out -128 alone: its op writes one code lower, one QUANTIZE moves it up.
    """
    low, high = quant.limits
    return [shift for shift in (127 - high, -128 - low) if shift]


@dataclass
class _Lowering:
    """The graph so far. ``held``: id of a tensor in the float graph and its type -> id in the typed one."""

    source: Graph
    plan: QuantPlan
    target: Target
    tensors: dict[int, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    held: dict[tuple[object, ...], int] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def run(self) -> Lowered:
        """All nodes, in order."""
        inputs = tuple(self._activation(t, INT8, self._quant(t)) for t in self.source.inputs)
        for node in self.source.nodes:
            self._lower(node)
        outputs = tuple(self._as(t, INT8) for t in self.source.outputs)
        graph = Graph(self.tensors, tuple(self.nodes), inputs, outputs, facts=self.source.facts)
        graph.check()
        found = {}
        for tensor in self.source.activations():
            kinds = (kind for kind in (INT8, INT16, FLOAT) if (tensor.id, kind) in self.held)
            found[tensor.name] = self.tensors[self.held[tensor.id, next(kinds)]].name
        return Lowered(graph, found)

    # --- what a node computes with ---

    def _lower(self, node: Node) -> None:
        kind = node.writes
        if node.op in self.target.lacks:
            name = self.source.tensors[node.outputs[0]].name
            raise PlanError(f"{node.op} {name!r} cannot run on the target {self.target.name}: choose another target")
        inputs = tuple(self._operand(node, i, node.reads) for i in range(len(node.inputs)))
        outputs, behind = [], []
        for t in node.outputs:
            if kind == INT8 and not isinstance(spec(node.op).out, Tied):
                made, clamp = self._clamped(t)
                behind += clamp
            else:
                made = self._activation(t, kind, self._written(node, t, kind))
            outputs.append(made)
        if node.op in self.target.tables and node.is_int8:
            self.nodes += [*self._table(node, inputs[0], outputs[0]), *behind]
            return
        op = "QUANTIZE" if self._saturates(node, outputs[0]) else node.op
        attrs = node.attrs if op == node.op else NoAttrs()
        self.nodes += [replace(node, op=op, attrs=attrs, inputs=inputs, outputs=tuple(outputs)), *behind]

    def _table(self, node: Node, read: int, made: int) -> list[Node]:
        """``node`` as a table of its results, which the target has in the place of its kernel."""
        like, out = self.tensors[read], self.tensors[made]
        assert like.quantization is not None
        assert out.quantization is not None
        whole, entry = replace(out, shape=(1,), name="table/low"), replace(out, shape=(256,), name=f"{out.name}/table")
        low = self._constant(("table", "low"), whole, "INT32", np.array([-INT8_LOW], np.int32), None)
        codes = table_of(node, like.quantization, out.quantization)
        table = self._add(entry.name, entry, INT8, out.quantization, codes)
        numbers, positions = (self._add(f"{out.name}/{n}", out, "INT32", None) for n in ("codes", "positions"))
        return [
            Node("CAST", spec("CAST").attrs(), (read,), (numbers,), node.block),
            Node("ADD", spec("ADD").attrs(), (numbers, low), (positions,), node.block),
            Node("GATHER", spec("GATHER").attrs(), (table, positions), (made,), node.block),
        ]

    def _saturates(self, node: Node, made: int) -> bool:
        """Whether ``node`` is a RELU whose result has no codes below 0: QUANTIZE, which XNNPACK has, does the same."""
        quantization = self.tensors[made].quantization
        return node.op == "RELU" and node.is_int8 and quantization is not None and quantization.zero_point == -128

    def _written(self, node: Node, t: int, kind: str) -> Quantization | None:
        if kind == INT8:
            return self._quant(t)
        if kind == FLOAT:
            return None
        wide = spec(node.op).wide
        if not node.in_island and wide is not None:
            return Quantization((wide.scale,), wide.zero_point, bits=16)
        return self._int16(t)

    def _quant(self, t: int) -> Quantization:
        return _quantization(self._planned(t))

    def _planned(self, t: int) -> TensorQuant:
        return self.plan.tensors[self.source.tensors[t].name]

    def _int16(self, t: int) -> Quantization:
        """What an island of int16 holds a tensor in."""
        name = self.source.tensors[t].name
        if name in self.plan.int16:
            return Quantization((self.plan.int16[name],), bits=16)
        if name not in self.plan.tensors:
            raise PlanError(f"{name!r} is held in int16, and the plan has no scale for it")
        return Quantization((self.plan.tensors[name].scale[0] / STEPS_OF_INT8,), bits=16)

    # --- operands ---

    def _operand(self, node: Node, position: int, kind: str) -> int:
        t, op = node.inputs[position], spec(node.op)
        if t < 0:
            return t
        tensor = self.source.tensors[t]
        if not tensor.is_constant:
            return self._as(t, kind)
        if tensor.dtype != FLOAT:
            return self._constant((t, tensor.dtype), tensor, tensor.dtype, tensor.data, None)
        if position == op.bias_input and kind == INT8:
            return self._bias(node, tensor)
        if position == op.weight_input and self._planned(t).bits == 4 and takes_int4(self.source, node):
            return self._float_constant(t, INT4)
        return self._float_constant(t, kind)

    def _float_constant(self, t: int, kind: str) -> int:
        tensor, quant = self.source.tensors[t], self.plan.tensors.get(self.source.tensors[t].name)
        data = self.source.constant(t)
        if kind in (INT4, INT8):
            planned = self._planned(t)
            quantization = replace(_quantization(planned), bits=4 if kind == INT4 else 8)
            return self._constant((t, kind), tensor, kind, constant_codes(data, planned), quantization)
        values = data if quant is None else on_grid(data, quant)
        if kind == FLOAT:
            return self._constant((t, FLOAT), tensor, FLOAT, values, None)
        scale = int16_scale(float(np.abs(values).max(initial=0.0)))
        codes = np.clip(np.rint(values.astype(np.float64) / scale), -INT16_TOP, INT16_TOP).astype(np.int16)
        return self._constant((t, INT16), tensor, INT16, codes, Quantization((scale,), bits=16))

    def _bias(self, node: Node, tensor: Tensor) -> int:
        """int32 codes in steps of s_in * s_w, one for each output channel."""
        op = spec(node.op)
        data, weight = (self._planned(node.inputs[i]) for i in (op.data_input, op.weight_input))
        step = np.asarray(data.scale[0]) * np.asarray(weight.scale)
        values = self.source.constant(tensor.id).astype(np.float64)
        codes = np.clip(np.rint(values / step), -INT32_TOP - 1, INT32_TOP).astype(np.int32)
        scale = tuple(float(s) for s in step.astype(np.float32))
        axis = 0 if len(scale) > 1 else None
        return self._constant((tensor.id, scale), tensor, "INT32", codes, Quantization(scale, 0, axis, bits=32))

    # --- tensors and conversions ---

    def _constant(
        self, key: tuple[object, ...], like: Tensor, dtype: str, data: NDArray[np.generic] | None,
        quantization: Quantization | None,
    ) -> int:  # fmt: skip
        if key not in self.held:
            self.held[key] = self._add(like.name, like, dtype, quantization, data)
        return self.held[key]

    def _activation(self, t: int, kind: str, quantization: Quantization | None) -> int:
        """The tensor that holds ``t`` in one type; the name stays with that of its writer."""
        like = self.source.tensors[t]
        name = like.name if like.name not in self.names else f"{like.name}:{NAMES[kind]}"
        self.held[t, kind] = self._add(name, like, kind, quantization)
        return self.held[t, kind]

    def _add(
        self, name: str, like: Tensor, dtype: str, quantization: Quantization | None,
        data: NDArray[np.generic] | None = None,
    ) -> int:  # fmt: skip
        unique, n = name, 1
        while unique in self.names:
            n += 1
            unique = f"{name}.{n}"
        self.names.add(unique)
        made = Tensor(len(self.tensors), unique, like.shape, dtype, data, quantization)
        self.tensors[made.id] = made
        return made.id

    def _clamped(self, t: int) -> tuple[int, list[Node]]:
        """The tensor that the op writes, and the QUANTIZE ops behind it that end in the one with the plan's codes."""
        like, planned = self.source.tensors[t], self._planned(t)
        last = self._activation(t, INT8, _quantization(planned))
        own = [self._add(f"{like.name}.unclamped", like, INT8, _quantization(planned, n)) for n in shifts(planned)]
        chain = [*own, last]
        return chain[0], [Node("QUANTIZE", NoAttrs(), (a,), (b,)) for a, b in pairwise(chain)]

    def _as(self, t: int, kind: str) -> int:
        """The tensor that holds ``t`` in one type, by a QUANTIZE or DEQUANTIZE where it is not there yet."""
        if (t, kind) in self.held:
            return self.held[t, kind]
        source = next(self.held[t, other] for other in (INT8, INT16, FLOAT) if (t, other) in self.held)
        behind: list[Node] = []
        if kind == INT8:
            made, behind = self._clamped(t)
        else:
            made = self._activation(t, kind, None if kind == FLOAT else self._int16_of_int8(t))
        op = "DEQUANTIZE" if kind == FLOAT else "QUANTIZE"
        self.nodes += [Node(op, NoAttrs(), (source,), (made,)), *behind]
        return self.held[t, kind]

    def _int16_of_int8(self, t: int) -> Quantization:
        """int8 codes become int16 ones without a rounding."""
        return Quantization((self._planned(t).scale[0] / STEPS_OF_INT8,), bits=16)
