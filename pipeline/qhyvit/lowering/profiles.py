"""Which nodes compute outside int8: none, or in float those that are faster so.

SOFTMAX and RSQRT have no int8 kernel in XNNPACK and coarse ones in TFLite (softmax's output step is 1/256, whatever its
range); in float they run on few elements between a DEQUANTIZE and a QUANTIZE. Without float a softmax may write int16,
with a step of 1/65536, before a QUANTIZE: then its int8 codes have a scale of their own too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from qhyvit.errors import PlanError
from qhyvit.graph import edit
from qhyvit.graph.ir import FLOAT, INT8, INT16, Graph
from qhyvit.latency import work as kernels
from qhyvit.latency.profile import LatencyProfile
from qhyvit.lowering.placement import Worth, is_long_softmax, place
from qhyvit.ops import spec
from qhyvit.targets import CPU, INTEGER, Target

ISLANDS = {INTEGER: INT16, CPU: FLOAT}  # the type of each profile's islands


TYPES = ((FLOAT, FLOAT), (INT16, INT16), (INT8, INT16))  # what nodes outside int8 read and write
GATES = "gates"


def placed(graph: Graph, target: Target, worth: Worth | None = None) -> Graph:
    """The graph as the target wants it: islands of float, or of int16 where it is to compute no float; zero points.

    Args:
        worth: what accuracy is worth in milliseconds; None: nothing, so that there are no islands of int16.
    """
    graph = replace(graph, centred=target.symmetric)
    if target.floats:
        return with_islands(edit.all_int8(graph), target.profile, place(graph, target.latency, worth))
    if worth is None or not target.islands:
        return edit.all_int8(graph)
    return with_islands(graph, target.profile, place(graph, target.latency, worth, int16=True))


def with_islands(graph: Graph, profile: str, outputs: Iterable[int]) -> Graph:
    """The graph with the nodes that write ``outputs`` in islands of the profile's type, and no others."""
    kind = ISLANDS[profile]
    return edit.computed_in(edit.computed_in(graph, graph.islands, INT8, INT8), outputs, kind, kind)


def ids_of(graph: Graph, names: Iterable[str]) -> list[int]:
    """Ids of tensors by their names.

    Raises:
        PlanError: a name that no tensor has.
    """
    names = list(names)
    unknown = [name for name in names if name not in graph.by_name]
    if unknown:
        raise PlanError(f"the graph has no tensor {unknown[0]!r}: the plan is another graph's; calibrate again")
    return [graph.by_name[name].id for name in names]


def with_gates(graph: Graph, names: Iterable[str]) -> Graph:
    """The graph with the nodes that write the tensors ``names`` marked as gates, and no others."""
    wanted = set(ids_of(graph, names))
    gates = [bool(wanted.intersection(n.outputs)) for n in graph.nodes]
    nodes = (n if n.gate == gate else replace(n, gate=gate) for n, gate in zip(graph.nodes, gates, strict=True))
    return replace(graph, nodes=tuple(nodes))


def marks(graph: Graph) -> dict[str, list[str]]:
    """What the nodes of a float graph say beyond a float file, as names of what they write."""
    kinds = ((f"{reads}>{writes}", reads, writes) for reads, writes in TYPES)
    found = {
        label: [graph.tensors[t].name for n in graph.nodes if (n.reads, n.writes) == (reads, writes) for t in n.outputs]
        for label, reads, writes in kinds
    }
    return {**found, GATES: [graph.tensors[t].name for t in sorted(graph.gates)]}


def marked(graph: Graph, names: Mapping[str, Iterable[str]]) -> Graph:
    """The graph with what :func:`marks` gave."""
    for reads, writes in TYPES:
        graph = edit.computed_in(graph, ids_of(graph, names[f"{reads}>{writes}"]), reads, writes)
    return with_gates(graph, names[GATES])


def may_be_float(graph: Graph, tensor: int) -> bool:
    """Whether the node that writes ``tensor`` has no weights, which are always int8."""
    node = graph.producer(tensor)
    return node is not None and spec(node.op).weight_input < 0


def widened(graph: Graph, outputs: Iterable[int]) -> Graph:
    """The graph with the nodes that write ``outputs`` reading int8 and writing int16."""
    return edit.computed_in(graph, outputs, INT8, INT16)


def long_softmaxes(graph: Graph) -> list[int]:
    """Softmax outputs that int8 softmax may round to nothing: every method needs int16 there."""
    return [n.outputs[0] for n in graph.nodes if is_long_softmax(graph, n)]


def wide_cost_ms(graph: Graph, tensor: int, latency: LatencyProfile) -> float | None:
    """What computing ``tensor`` in int16 costs; None if it can't, is not known, or runs outside int8 already."""
    node = graph.producer(tensor)
    if node is None or spec(node.op).wide is None or not node.is_int8:
        return None
    narrow, wide = (latency.ms(kernels.work_of(graph, node, kernels.INT8, t)) for t in (kernels.INT8, kernels.INT16))
    name = f"QUANTIZE {kernels.INT16}>{kernels.INT8}"
    back = latency.ms(kernels.KernelWork(name, kernels.work_of(graph, node, kernels.INT8, kernels.INT16).elements))
    return None if narrow is None or wide is None or back is None else max(wide + back - narrow, 0.0)
