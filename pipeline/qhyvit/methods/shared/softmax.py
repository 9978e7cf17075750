"""SOFTMAX of ops that XNNPACK has in int8, where its own kernel, which XNNPACK lacks, takes longer.

With z = x - max(x) and l = log sum exp(z), softmax(x) = exp(z - l). ELU(z) is exp(z) - 1 for z <= 0, and one table of
256 codes in int8; the sum is a FULLY_CONNECTED op with ones as weights, in a 32-bit accumulator; the logarithm is
taken of one number a row. K times the softmax is what comes out, K the largest power of two that keeps it below 1 on
the calibration images: so its codes are as fine as the values allow, where SOFTMAX has steps of 1/256 whatever they
are. The next layer's weights are divided by K. Where another image brings more than 1 / K, z - l + log K is above 0 and
ELU is no exponential any more: its int8 codes end there as well (``Node.gate``).

Over a few values, where float is allowed, it is exp(x) / sum(exp(x)) in float: kernels, float and int8, take as long
for a row of three as for a row of hundred. No maximum is subtracted: x stays int8, and its range is that of the
calibration images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import Sizes
from qhyvit.lowering.placement import must_be_float
from qhyvit.lowering.profiles import placed
from qhyvit.methods.shared.patterns import layers_behind
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import copying, spec
from qhyvit.ops.shared.spec import Copies
from qhyvit.sim.checked import Edit
from qhyvit.sim.run import Executor

LARGEST_SCORE = 60.0  # ranges may get wider than what was seen, up to LARGEST_EXPONENT
PASSED = copying(Copies.ONCE) | {"BATCH_MATMUL", "MUL"}


def candidates(graph: Graph, sizes: Sizes) -> list[Node]:
    """Softmax nodes that are worth it: int8 with many elements, or int16, with a layer behind that takes a factor."""
    found = []
    for node in graph.nodes:
        if node.op != "SOFTMAX" or node.attrs.beta != 1.0:
            continue
        out, has_layer = graph.tensors[node.outputs[0]], _next_layer(graph, node.outputs[0]) is not None
        large = node.is_int8 and math.prod(out.shape) >= sizes.softmax_elements
        if has_layer and (large or out.id in graph.widened):
            found.append(node)
    return found


def _next_layer(graph: Graph, tensor: int) -> Node | None:
    """The only layer that reads ``tensor``, through copies and products; None: there is none."""
    layers = layers_behind(graph, tensor, PASSED)
    return layers[0] if layers is not None and len(layers) == 1 else None


def _peaks(problem: Problem, tensors: Sequence[int]) -> dict[int, float]:
    """Largest absolute value of each tensor on the calibration images."""
    executor = Executor(problem.graph)
    found = dict.fromkeys(tensors, 0.0)
    for values in problem.values(executor, tensors):
        found = {t: max(found[t], float(values[t].abs().max())) for t in tensors}
    return found


def unrolled(graph: Graph, node: Node, factor: float) -> Graph:
    """The graph with ``factor`` times the softmax, made of the ops above, in the place of ``node``."""
    out = graph.tensors[node.outputs[0]]
    count, name, rows = out.shape[-1], out.name, (*out.shape[:-1], 1)
    nodes: list[Node] = []

    def constant(label: str, data: np.ndarray) -> int:
        nonlocal graph
        graph, t = edit.add_tensor(graph, f"{name}/{label}", data.shape, data.dtype.name.upper(), data)
        return t

    def add(op: str, label: str, inputs: tuple[int, ...], shape: tuple[int, ...], **attrs: bool) -> int:
        nonlocal graph
        graph, t = edit.add_tensor(graph, f"{name}/{label}", shape, out.dtype)
        nodes.append(Node(op, spec(op).attrs(**attrs), inputs, (t,), node.block))
        return t

    x = node.inputs[0]
    axis = constant("axis", np.array([len(out.shape) - 1], np.int32))
    weight = constant("ones", np.full((1, count), 1 / factor, np.float32))
    bias = constant("count", np.array([count / factor], np.float32))
    one = constant("one", np.ones((1,), np.float32))
    largest = add("REDUCE_MAX", "max", (x, axis), rows, keep_dims=True)
    z = add("SUB", "sub", (x, largest), out.shape)
    first = add("ELU", "elu", (z,), out.shape)
    total = add("FULLY_CONNECTED", "sum", (first, weight, bias), rows, keep_num_dims=True)
    log = add("LOG", "log", (total,), rows)
    normal = add("SUB", "sub", (z, log), out.shape)
    second = add("ELU", "elu", (normal,), out.shape)
    nodes.append(Node("ADD", spec("ADD").attrs(), (second, one), node.outputs, node.block))
    for new in nodes:
        graph = edit.insert_before(graph, node, replace(new, gate=second in new.outputs))
    return replace(graph, nodes=tuple(n for n in graph.nodes if n is not node))


@dataclass(frozen=True)
class _Short:
    """A softmax over few values, and the RESHAPEs that give it its rows and take them away again."""

    softmax: Node
    before: Node | None = None
    behind: Node | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """What it reads and what it writes, RESHAPEs included."""
        first, last = self.before or self.softmax, self.behind or self.softmax
        return first.inputs[0], last.outputs[0]


def shorts(graph: Graph, sizes: Sizes) -> list[_Short]:
    """Softmaxes over fewer values than kernels compute at once, with many rows."""
    found = []
    for node in graph.nodes:
        out = graph.tensors[node.outputs[0]]
        is_short = node.op == "SOFTMAX" and node.attrs.beta == 1.0 and out.shape[-1] < sizes.lanes
        if is_short and math.prod(out.shape[:-1]) >= sizes.softmax_rows and out.id not in graph.outputs:
            found.append(_with_reshapes(graph, node))
    makers = [graph.producer(short.ends[0]) for short in found]
    return [s for s, maker in zip(found, makers, strict=True) if maker is None or not must_be_float(graph, maker)]


def _with_reshapes(graph: Graph, softmax: Node) -> _Short:
    before, users = graph.producer(softmax.inputs[0]), graph.users(softmax.outputs[0])
    if before is None or before.op != "RESHAPE" or [u.op for u in users] != ["RESHAPE"]:
        return _Short(softmax)
    alone = graph.users(softmax.inputs[0]) == (softmax,)
    wide, again = graph.tensors[before.inputs[0]].shape, graph.tensors[users[0].outputs[0]].shape
    whole_rows = wide == again and wide[-1] % graph.tensors[softmax.outputs[0]].shape[-1] == 0
    return _Short(softmax, before, users[0]) if alone and whole_rows else _Short(softmax)


def as_quotient(graph: Graph, short: _Short) -> Graph:
    """The graph with exp(x) / sum(exp(x)) in the place of a softmax; the sums of a row are one product with ones."""
    (source, target), node = short.ends, short.softmax
    out, count = graph.tensors[target], graph.tensors[node.outputs[0]].shape[-1]
    ones = np.kron(np.eye(out.shape[-1] // count, dtype=np.float32), np.ones((count, count), np.float32))
    graph, powers = edit.add_tensor(graph, f"{out.name}/exp", out.shape, out.dtype)
    graph, weight = edit.add_tensor(graph, f"{out.name}/ones", ones.shape, out.dtype, ones)
    graph, total = edit.add_tensor(graph, f"{out.name}/sum", out.shape, out.dtype)
    for new in (
        Node("EXP", spec("EXP").attrs(), (source,), (powers,), node.block),
        Node("BATCH_MATMUL", spec("BATCH_MATMUL").attrs(), (powers, weight), (total,), node.block),
        Node("DIV", spec("DIV").attrs(), (powers, total), (target,), node.block),
    ):
        graph = edit.insert_before(graph, node, new)
    gone = [n for n in (short.before, node, short.behind) if n is not None]
    lost = {n.outputs[0] for n in gone} - {target}
    nodes = tuple(n for n in graph.nodes if not any(n is g for g in gone))
    return replace(graph, nodes=nodes, tensors={t: v for t, v in graph.tensors.items() if t not in lost})


def quotients(problem: Problem) -> Problem:
    """Short softmaxes as quotients, where nodes may compute in float; its log says where."""
    found = shorts(problem.graph, problem.latency.sizes) if problem.target.floats else []
    peaks = _peaks(problem, [s.ends[0] for s in found]) if found else {}
    found = [s for s in found if peaks[s.ends[0]] <= LARGEST_SCORE]
    if not found:
        return problem
    names = [problem.graph.tensors[short.ends[1]].name for short in found]
    edits = [
        Edit(f"softmax {n} as a quotient", partial(as_quotient, short=s)) for n, s in zip(names, found, strict=True)
    ]
    problem, done = problem.edited(edits)
    for name in (n for n, made in zip(names, done, strict=True) if made):
        problem.log(f"softmax {name}: a quotient of exponentials")
    problem.graph.check()
    return problem.on(placed(problem.graph, problem.target))


def unroll(problem: Problem) -> Problem:
    """Every candidate of the problem's graph unrolled; its log says where."""
    nodes = candidates(problem.graph, problem.latency.sizes)
    if not nodes:
        return problem
    peaks = _peaks(problem, [n.outputs[0] for n in nodes])
    # float32 may say 1 + 1e-7
    factors = [2.0 ** math.floor(-math.log2(min(peaks[n.outputs[0]], 1.0))) for n in nodes]
    names = [problem.graph.tensors[n.outputs[0]].name for n in nodes]
    edits = [
        Edit(f"softmax {name} unrolled", partial(_unrolled_with_layer, node=node, factor=factor))
        for name, node, factor in zip(names, nodes, factors, strict=True)
    ]
    problem, done = problem.edited(edits)
    for name, factor in ((n, f) for n, f, made in zip(names, factors, done, strict=True) if made):
        problem.log(f"softmax {name}: int8 ops, times {factor:g}")
    problem.graph.check()
    return problem


def _unrolled_with_layer(graph: Graph, node: Node, factor: float) -> Graph:
    """The softmax unrolled, and the factor taken out of the weights behind it."""
    graph = unrolled(graph, node, factor)
    layer = _next_layer(graph, node.outputs[0])
    assert layer is not None
    graph, _ = edit.times_constant(graph, layer, spec(layer.op).weight_input, 1 / factor)
    return graph
