"""What an op has to do, as a latency profile counts it: its kernel's name, elements, multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec

INT8, INT16, FLOAT = "int8", "int16", "float32"
TABLE = "TABLE int8"  # the kernel of ops that have ``OpSpec.table``
LANES = 16
FEW_ROWS = "few"  # products in which packing the right operand takes longer than multiplying
Inputs = Sequence[int]
Producer = Callable[[int], "tuple[str, Inputs] | None"]  # tensor -> op and inputs of the node that writes it


@dataclass(frozen=True)
class KernelWork:
    """One op for one kernel.

    ``elements``: of its largest activation; ``macs``: multiply-accumulates, 0: none. A SOFTMAX has its rows instead, if
    they do not fill ``LANES``: XNNPACK spends on the rest of each as long as on a hundred elements. An elementwise op
    whose smaller operand is repeated has the runs without a repeat instead: XNNPACK calls its kernel for each.
    """

    kernel: str
    elements: int
    macs: int = 0


def role(op: str, inputs: Inputs, producer: Producer) -> str:
    """Kernels that take a time of their own, else "".

    MUL as a square or as the product of SiLU may be computed together with a neighbour; a row's BATCH_MATMUL with
    itself (``squares``) is slow, as the kernel first packs the right operand for many columns.
    """
    if op == "BATCH_MATMUL" and inputs[0] == inputs[1]:
        return "squares"
    if op != "MUL":
        return ""
    a, b = inputs
    if a == b:
        return "square"
    gates = (producer(b), producer(a))
    is_silu = any(g is not None and g[0] == "LOGISTIC" and g[1][0] == x for g, x in zip(gates, (a, b), strict=True))
    return "silu" if is_silu else ""


def kernel_name(op: str, as_what: str, reads: str, writes: str) -> str:
    """``ADD int8``, ``MUL/silu int8``, ``QUANTIZE float32>int8``."""
    return f"{op}{'/' if as_what else ''}{as_what} {reads if reads == writes else f'{reads}>{writes}'}"


def work(
    op: str, as_what: str, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...], types: tuple[str, str]
) -> KernelWork:
    """The work of an op.

    Args:
        as_what: its :func:`role`; a product of fewer than ``LANES`` rows gets ``FEW_ROWS`` where that is "".
        shapes: of all inputs, weights and constants included; () for absent ones.
        out: of the first output.
        types: numpy names of what it reads and writes.
    """
    facts = spec(op)
    if op == "BATCH_MATMUL" and not as_what and out[-2] < LANES:
        as_what = FEW_ROWS
    own = [s for i, s in enumerate(shapes) if i not in (facts.weight_input, facts.bias_input)]
    elements = max(math.prod(s) for s in (*own, out))
    calls = math.prod(out[:-1]) if op == "SOFTMAX" and out[-1] % LANES else 0
    if facts.pairwise:
        calls = runs(own, out)
    return KernelWork(kernel_name(op, as_what, *types), elements, facts.macs(shapes, out) if facts.macs else calls)


def runs(operands: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
    """How many times an elementwise kernel is called, 0 for once: neighbouring axes count as one where each operand
    has both or is repeated along both.
    """
    whole = [(1,) * (len(out) - len(s)) + s for s in operands]
    kinds = [(size, tuple(s[i] == size for s in whole)) for i, size in enumerate(out) if size > 1]
    inner = 1
    for size, kind in reversed(kinds):
        if kind != kinds[-1][1]:
            break
        inner *= size
    calls = math.prod(out) // inner
    return calls if calls > 1 else 0


def role_of(graph: Graph, node: Node) -> str:
    """The :func:`role` of a node."""

    def producer(t: int) -> tuple[str, Inputs] | None:
        found = graph.producer(t)
        return None if found is None else (found.op, found.inputs)

    return role(node.op, node.inputs, producer)


def is_sum_of_squares(graph: Graph, node: Node) -> bool:
    """A row's product with itself: in float, MUL and SUM do the same in a fiftieth of the time (tflite/squares.py)."""
    is_row = graph.tensors[node.outputs[0]].shape[-2:] == (1, 1)
    return node.op == "BATCH_MATMUL" and node.inputs[0] == node.inputs[1] and is_row


def float_work(graph: Graph, node: Node) -> tuple[KernelWork, ...]:
    """The work of a node in float, as the file has it."""
    if is_sum_of_squares(graph, node):
        elements = math.prod(graph.tensors[node.inputs[0]].shape)
        return tuple(KernelWork(kernel_name(op, "", FLOAT, FLOAT), elements) for op in ("MUL", "SUM"))
    return (work_of(graph, node, FLOAT, FLOAT),)


def work_of(graph: Graph, node: Node, reads: str, writes: str) -> KernelWork:
    """The work of a node whose activations are of these types."""
    shapes = [graph.tensors[t].shape if t >= 0 else () for t in node.inputs]
    out = graph.tensors[node.outputs[0]].shape
    return work(node.op, role_of(graph, node), shapes, out, (reads, writes))
