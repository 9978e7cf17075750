"""GELU as SiLU, where its own int8 kernel, which XNNPACK lacks, takes three times as long, and where outputs allow it.

GELU(x) = x * Phi(x), and Phi(x) is within 0.01 of sigmoid(1.702 x) (Hendrycks and Gimpel, arXiv 1606.08415, section 2).
With z = 1.702 x made by the layer in front, z * sigmoid(z) is 1.702 times the result, one table of codes; the layers
behind take the factor out of their weights. The sigmoid is a gate of the graph (``Node.gate``): whoever asks for the
float network gets Phi itself, so that no target of the search moves.

Between 0.01 and nothing lies what a network makes of it: one trained embedding lost 8 % of its outputs' variance in a
single block. So the outputs decide. A GELU becomes a SiLU where the distance to the reference that this alone adds, as
a share of what quantization costs by then, buys enough time (the price of :mod:`qhyvit.methods.shared.islands`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.latency.profile import LatencyProfile
from qhyvit.latency.work import INT8, work_of
from qhyvit.methods.shared.hessian import mean_distance
from qhyvit.methods.shared.islands import gain_per_ms
from qhyvit.methods.shared.patterns import is_layer, layers_behind
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import copying, spec
from qhyvit.ops.shared.spec import Copies, FusedActivation
from qhyvit.sim.checked import Edit
from qhyvit.sim.replay import Replay
from qhyvit.sim.run import GATE_SLOPE

FEW = 4  # images that price each approximation by itself
COPIES = copying(Copies.ONCE) | {"PAD"}


def candidates(graph: Graph) -> list[Node]:
    """Int8 GELUs right behind a layer, with nothing but layers behind them."""
    found = []
    for node in graph.nodes:
        if node.op != "GELU" or not node.is_int8:
            continue
        layer, out = graph.producer(node.inputs[0]), graph.tensors[node.outputs[0]]
        if layer is None or not is_layer(graph, layer) or graph.users(node.inputs[0]) != (node,):
            continue
        linear = layer.attrs.fused_activation_function == FusedActivation.NONE
        if linear and layers_behind(graph, out.id, COPIES):
            found.append(node)
    return found


def as_silu(graph: Graph, node: Node) -> Graph:
    """The graph with z * sigmoid(z) in the place of a candidate, the sigmoid marked as a gate."""
    layer, out = graph.producer(node.inputs[0]), graph.tensors[node.outputs[0]]
    assert layer is not None
    z = node.inputs[0]
    for position in (spec(layer.op).weight_input, spec(layer.op).bias_input):
        if position < len(layer.inputs) and layer.inputs[position] >= 0:
            graph, layer = edit.times_constant(graph, layer, position, GATE_SLOPE)
    for behind in layers_behind(graph, out.id, COPIES) or ():
        graph, _ = edit.times_constant(graph, behind, spec(behind.op).weight_input, 1 / GATE_SLOPE)
    graph, gate = edit.add_tensor(graph, f"{out.name}/sigmoid", out.shape, out.dtype)
    sigmoid = Node("LOGISTIC", spec("LOGISTIC").attrs(), (z,), (gate,), node.block, gate=True)
    product = Node("MUL", spec("MUL").attrs(), (z, gate), node.outputs, node.block)
    return edit.insert_before(edit.replace_node(graph, node, product), product, sigmoid)


def _saved_ms(graph: Graph, node: Node, latency: LatencyProfile) -> float:
    """Milliseconds that the SiLU saves; 0 where a kernel is not known."""
    after = as_silu(graph, node)
    product = after.producer(node.outputs[0])
    assert product is not None
    gate = after.producer(product.inputs[1])
    assert gate is not None
    before, *new = (latency.ms(work_of(g, n, INT8, INT8)) for g, n in ((graph, node), (after, gate), (after, product)))
    return 0.0 if before is None or None in new else before - sum(ms for ms in new if ms is not None)


@dataclass(frozen=True)
class _Offer:
    """A candidate, the distance that its approximation alone adds, and the most that its time is worth."""

    node: Node
    cost: float
    worth: float


def _offers(problem: Problem, distance: float) -> list[_Offer]:
    graph = problem.graph
    price = gain_per_ms(graph, problem.latency, far=distance > problem.lowered.far) * distance
    saved = {n: _saved_ms(graph, n, problem.latency) for n in candidates(graph)}
    wanted = [n for n, ms in saved.items() if ms > 0]
    if not wanted:
        return []
    target, replay = problem.targets[:FEW], Replay(graph, problem.images[:FEW])
    offers: list[_Offer] = []
    for node in wanted:
        problem.progress("GELU forms", len(offers) / len(wanted))
        x = replay.values[node.inputs[0]]
        outputs = replay.rows({node.outputs[0]: x * torch.sigmoid(GATE_SLOPE * x)})
        cost = float(problem.lowered.distance(target, outputs).mean())
        offers.append(_Offer(node, max(cost, 0.0), price * saved[node]))
    return [o for o in offers if o.cost <= o.worth]


def _joint_cost(problem: Problem, offers: Sequence[_Offer]) -> float:
    """Distance to the reference that all approximations together add, on all images."""
    graph = problem.graph
    for offer in offers:
        graph = as_silu(graph, offer.node)
    return mean_distance(problem.on(graph), {})


def as_silus(problem: Problem, distance: float) -> list[str]:
    """Names of the outputs of the candidates that pay as SiLU; the problem's log says where.

    Args:
        distance: of the quantized network's outputs from the reference, with every GELU as it is.
    """
    offers = sorted(_offers(problem, distance), key=lambda o: o.cost / max(o.worth, 1e-30))
    while offers and _joint_cost(problem, offers) > sum(o.worth for o in offers):
        offers.pop()  # errors of one sign add up: the dearest goes first
    for offer in offers:
        name = problem.graph.tensors[offer.node.outputs[0]].name
        problem.log(f"GELU {name} as SiLU: {offer.cost / distance:.1%} of the distance")
    return [problem.graph.tensors[o.node.outputs[0]].name for o in offers]


def again(problem: Problem, names: Sequence[str]) -> Problem:
    """The GELUs that write the tensors ``names`` as SiLU, those that are GELUs still."""
    made = [(n, problem.graph.producer(problem.graph.by_name[n].id)) for n in names]
    edits = [Edit(f"GELU {n} as SiLU", partial(as_silu, node=g)) for n, g in made if g is not None and g.op == "GELU"]
    problem, _ = problem.edited(edits)
    problem.graph.check()
    return problem
