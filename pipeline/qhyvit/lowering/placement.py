"""Which nodes compute in float: the set with the least time by a latency profile, borders and accuracy counted in.

Or in int16: all that is said of float holds, with other kernels, times and borders.

Every node is int8 or float. A tensor that crosses costs one DEQUANTIZE for all its float readers, or one QUANTIZE for
all its int8 readers. The cheapest assignment is a minimum cut of a graph with one vertex a node and one a border.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import networkx as nx

from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import LatencyProfile
from qhyvit.latency.work import FLOAT, INT8, TABLE, KernelWork, float_work, is_sum_of_squares, role_of, work_of
from qhyvit.lowering.contracts import groups
from qhyvit.lowering.int16_roots import ops_before_root
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Tied

INT8_SIDE, FLOAT_SIDE = "int8", "float"
LONGEST, PER_MS = 1e6, 1e12  # ms, and units of a capacity in whole numbers
# Equal attention to so many positions has weights of 1/512, which int8 softmax rounds to zero, all of them
LONG_SOFTMAX = 512


@dataclass(frozen=True)
class Worth:
    """What accuracy is worth, milliseconds by tensor id.

    Args:
        free: of an output that gets a range of its own where its kernel prescribes one in int8.
        unrounded: of a tensor that is never rounded: its writer and all its readers compute in float, and all readers
            of its copies. Where some of the readers do, their share.
    """

    free: Mapping[int, float] = field(default_factory=dict)
    unrounded: Mapping[int, float] = field(default_factory=dict)


def is_long_softmax(graph: Graph, node: Node) -> bool:
    """A softmax that int8 may round to nothing."""
    return node.op == "SOFTMAX" and graph.tensors[node.outputs[0]].shape[-1] >= LONG_SOFTMAX


@dataclass(frozen=True)
class Times:
    """Milliseconds of the nodes that have a choice, by their first output.

    Args:
        int8, floats: as int8 and as float ops.
        table: as a table of codes, where that is possible: a float op between DEQUANTIZE and QUANTIZE.
        dequantize, quantize: of a border, by tensor.
        together: (a, b): node a is float only where node b is.
    """

    int8: Mapping[int, float]
    floats: Mapping[int, float]
    table: Mapping[int, float]
    dequantize: Mapping[int, float]
    quantize: Mapping[int, float]
    together: tuple[tuple[int, int], ...]

    def narrow(self, node: int) -> float:
        """The faster of the two ways that read and write int8."""
        return min(self.int8[node], self.table.get(node, self.int8[node]))


def _may_be_float(graph: Graph, node: Node, int8: frozenset[int]) -> bool:
    """Whether ``node`` has no weights, which stay int8, and writes none of the tensors ``int8``."""
    activations = [t for t in (*node.inputs, *node.outputs) if t >= 0 and not graph.tensors[t].is_constant]
    return (
        spec(node.op).weight_input < 0
        and all(graph.tensors[t].dtype == "FLOAT32" for t in activations)
        and not set(node.outputs).intersection((*graph.outputs, *graph.widened, *int8))
    )  # fmt: skip


def _whole_norm(graph: Graph, node: Node) -> list[tuple[int, int]]:
    """Pairs (a, b), a int16 only where b is: a root, all from the sum of squares on; a mean of squares, the squares.

    The runtime's int16 RSQRT needs more codes than those that int8 values become.
    """
    t = node.outputs[0]
    if node.op == "RSQRT":
        return [(t, n.outputs[0]) for n in ops_before_root(graph, node)]
    made = graph.producer(node.inputs[0]) if node.op == "MEAN" else None
    is_square = made is not None and made.op == "MUL" and made.inputs[0] == made.inputs[1]
    return [(t, node.inputs[0])] if is_square else []


def must_be_float(graph: Graph, node: Node) -> bool:
    """Whether int8 would be wrong, or cannot be had at all."""
    return is_long_softmax(graph, node) or spec(node.op).integer is None


def times(graph: Graph, latency: LatencyProfile, *, int16: bool = False) -> Times:
    """What the profile says about every node that may be float (or ``int16``) and whose kernels it knows."""
    latency = latency.outside_int8(int16=int16)
    right, with_squares = _right_operands(graph)
    sums = _sums_of_exponentials(graph)
    # int8 keeps what EXP reads in its range, and would lose most of what it gives: that spans orders of magnitude
    codes = right.union(powers.inputs[0] for powers, _ in sums)
    whole = {n.outputs[0] for pair in sums for n in pair}
    int8, floats, table = {}, {}, {}
    whole_norms: list[tuple[int, int]] = []
    for node in graph.nodes:
        t = node.outputs[0]
        must = t in whole or must_be_float(graph, node)
        narrow, wide = latency.ms(work_of(graph, node, INT8, INT8)), _float_ms(graph, node, latency, int16=int16)
        unknown = (narrow is None and not must) or (wide is None and (int16 or not must))
        no_root = int16 and node.op == "RSQRT" and not ops_before_root(graph, node)
        if unknown or no_root or not _may_be_float(graph, node, codes):
            continue
        if int16:
            whole_norms += _whole_norm(graph, node)
            # accuracy alone pays for it: a file without int16 runs on older runtimes
            wide = max(wide or 0.0, narrow or 0.0)
        int8[t], floats[t] = math.inf if must or narrow is None else narrow, wide or 0.0
        looked_up = latency.ms(KernelWork(TABLE, work_of(graph, node, INT8, INT8).elements))
        if spec(node.op).table and looked_up is not None and t not in whole:
            table[t] = looked_up
    borders = {}
    for name, types in (("DEQUANTIZE", f"{INT8}>{FLOAT}"), ("QUANTIZE", f"{FLOAT}>{INT8}")):
        size = {t.id: KernelWork(f"{name} {types}", math.prod(t.shape)) for t in graph.activations()}
        borders[name] = {t: latency.ms(work) or 0.0 for t, work in size.items()}
    return Times(
        int8,
        floats,
        table,
        borders["DEQUANTIZE"],
        borders["QUANTIZE"],
        (*_together(graph), *with_squares, *whole_norms),
    )


def _float_ms(graph: Graph, node: Node, latency: LatencyProfile, *, int16: bool = False) -> float | None:
    """Milliseconds of a node in float (or ``int16``); None for a kernel that was never measured."""
    works = (work_of(graph, node, FLOAT, FLOAT),) if int16 else float_work(graph, node)
    parts = [latency.ms(part) for part in works]
    known = [ms for ms in parts if ms is not None]
    return sum(known) if len(known) == len(parts) else None


def fastest_ms(graph: Graph, latency: LatencyProfile) -> float:
    """Milliseconds of all nodes whose kernels are known, each in its faster type; no borders."""
    ms = 0.0
    for node in graph.nodes:
        ways = (latency.ms(work_of(graph, node, INT8, INT8)), _float_ms(graph, node, latency))
        ms += min((way for way in ways if way is not None), default=0.0)
    return ms


def _right_operands(graph: Graph) -> tuple[frozenset[int], tuple[tuple[int, int], ...]]:
    """Tensors that are made into right operands, and pairs (a, b): a is float only where b is.

    The former stay int8: their codes leave out -128.

    A sum of squares needs no operands in int8 once it is float itself.
    """
    right: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for group in groups(graph):
        users = [(t, n) for t in group.members for n in graph.users(t)]
        readers = [n for t, n in users if any(n.inputs[i] == t for i in spec(n.op).symmetric_inputs)]
        if group.symmetric and readers and all(is_sum_of_squares(graph, n) for n in readers):
            pairs += [(t, n.outputs[0]) for t in group.members for n in readers]
        elif group.symmetric:
            right.update(group.members)
    return frozenset(right), tuple(pairs)


def _together(graph: Graph) -> tuple[tuple[int, int], ...]:
    """Pairs (a, b) of nodes, by first output: a is float only where b is.

    A kernel that takes in its neighbour does so within one type; an eps is lost on the int8 grid of a mean, and where
    an int8 root reads the sum.
    """
    found = []
    for node in graph.nodes:
        t, kind = node.outputs[0], role_of(graph, node)
        if kind == "silu":
            gate = next(x for x in node.inputs if (made := graph.producer(x)) is not None and made.op == "LOGISTIC")
            found += [(t, gate), (gate, t)]
        elif kind == "square":
            found += [(t, u.outputs[0]) for u in graph.users(t) if u.op == "MEAN"]
        elif node.op == "RSQRT":
            lead = graph.producer(node.inputs[0])
            if lead is not None and lead.op == "ADD" and graph.users(lead.outputs[0]) == (node,):
                found += [(t, lead.outputs[0]), (lead.outputs[0], t)]
    return tuple(found)


def _sums_of_exponentials(graph: Graph) -> list[tuple[Node, Node]]:
    """EXP and the product that adds its results up, of each quotient of the two (methods/shared/softmax.py)."""
    found = []
    for node in graph.nodes:
        powers, total = (graph.producer(t) for t in node.inputs) if node.op == "DIV" else (None, None)
        if powers is None or total is None or powers.op != "EXP" or total.op != "BATCH_MATMUL":
            continue
        if total.inputs[0] == powers.outputs[0] and graph.tensors[total.inputs[1]].is_constant:
            found.append((powers, total))
    return found


def _ends(graph: Graph, tensor: int) -> tuple[int | None, list[int]]:
    """First outputs of the node that writes ``tensor`` (None: none does) and of those that read it."""
    made = graph.producer(tensor)
    return None if made is None else made.outputs[0], [u.outputs[0] for u in graph.users(tensor)]


def _values_behind(graph: Graph, reader: Node) -> list[int]:
    """First outputs of ``reader`` and, if it copies, of all that reads its copies: int8 there rounds just as well."""
    found, contract = [reader.outputs[0]], spec(reader.op).out
    if isinstance(contract, Tied) and not contract.rounds:
        found += [end for t in reader.outputs for user in graph.users(t) for end in _values_behind(graph, user)]
    return found


def _network(graph: Graph, cost: Times, worth: Worth) -> nx.DiGraph:
    """Edges carry what is lost if they are cut: their tail is int8 then, their head float."""
    net = nx.DiGraph()

    def lost(tail: object, head: object, ms: float | None = None) -> None:
        if ms is None or math.isinf(ms):
            net.add_edge(tail, head)  # without a capacity: never cut
        elif ms > 0:
            net.add_edge(tail, head, capacity=ms)

    for node in graph.nodes:
        t = node.outputs[0]
        if t in cost.int8:
            lost(INT8_SIDE, t, cost.floats[t])
            lost(t, FLOAT_SIDE, cost.narrow(t) + sum(worth.free.get(o, 0.0) for o in node.outputs))
        else:
            lost(INT8_SIDE, t)
    for a, b in cost.together:
        lost(b, a)
    for tensor in graph.activations():
        writer, readers = _ends(graph, tensor.id)
        source: object = INT8_SIDE if writer is None else writer
        lost(source, ("dequantize", tensor.id), cost.dequantize[tensor.id])
        lost(("quantize", tensor.id), source, cost.quantize[tensor.id])
        for reader in readers:
            lost(("dequantize", tensor.id), reader)
            lost(reader, ("quantize", tensor.id))
        if tensor.id in worth.unrounded:
            for user in graph.users(tensor.id):  # each of them has its part of what rounding costs
                whole = ("whole", tensor.id, user.outputs[0])
                lost(whole, FLOAT_SIDE, worth.unrounded[tensor.id] / len(readers))
                for end in (source, *_values_behind(graph, user)):
                    lost(end, whole)
    return net


def _cut(net: nx.DiGraph) -> set[object]:
    """What lies on the side of float in the cheapest cut; of cuts that cost the same, the one nearest to that side.

    Capacities become whole numbers, of which a flow is exact: sums of floats lose the small ones, so that what lies
    behind a cut would depend on the order in which the flow found its ways, and some flows would find none.
    """
    whole = net.copy()
    for _, _, edge in whole.edges(data=True):
        if "capacity" in edge:
            edge["capacity"] = round(min(edge["capacity"], LONGEST) * PER_MS)
    found: set[object] = nx.minimum_cut(whole, INT8_SIDE, FLOAT_SIDE)[1][1]
    return found


def place(graph: Graph, latency: LatencyProfile, worth: Worth | None = None, *, int16: bool = False) -> frozenset[int]:
    """Outputs of the nodes that compute in float (or ``int16``); of two sets that cost the same, the smaller one.

    What is widened has no choice.
    """
    cost = times(graph, latency, int16=int16)
    if not cost.int8:
        return frozenset()
    net = _network(graph, cost, worth or Worth())
    net.add_nodes_from((INT8_SIDE, FLOAT_SIDE))
    chosen = _cut(net)
    # what int8 cannot do may have been counted as a table of codes: that is a float op as well
    floats = {t for t in cost.int8 if t in chosen or math.isinf(cost.int8[t])}
    for t in cost.table:
        if _is_table(graph, cost, t, floats):
            floats.add(t)
    return frozenset(o for node in graph.nodes if node.outputs[0] in floats for o in node.outputs)


def _is_table(graph: Graph, cost: Times, t: int, floats: set[int]) -> bool:
    """Whether a node that reads and writes int8 is faster as a table of codes: no float node may touch it."""
    node = graph.producer(t)
    assert node is not None
    writer, _ = _ends(graph, node.inputs[0])
    _, readers = _ends(graph, t)
    return not floats.intersection((t, writer, *readers)) and cost.table[t] < cost.int8[t]
