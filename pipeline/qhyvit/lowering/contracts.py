"""What TFLite can express: which tensors share one scale, which scales are prescribed, and a plan's check.

Source: LiteRT 8-bit quantization specification; kernels and delegate facts stand with each op.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scipy.cluster.hierarchy import DisjointSet

from qhyvit.errors import PlanError
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.ops.shared.spec import Fixed, Tied
from qhyvit.plan import Codes, QuantPlan, TensorQuant


@dataclass(frozen=True)
class Group:
    """Tensors that share one scale and zero point.

    Args:
        members: tensor ids in execution order.
        roots: the members whose values are rounded there (outputs of ops that are no mere copies, inputs,
            constants); the others hold the same codes.
        fixed: prescribed (scale, zero point), or None.
        symmetric: some reader needs zero point 0.
        low_at_zero: the zero point is the lowest code: some reader needs that (RSQRT), or RELU makes all values.
        floor: what many values are exactly, and none is below (ELU), or None.
        centred: the zero point is 0 because the target wants it: no kernel prescribes one, and no code is left out.
    """

    members: tuple[int, ...]
    roots: tuple[int, ...]
    fixed: tuple[float, int] | None = None
    symmetric: bool = False
    low_at_zero: bool = False
    floor: float | None = None
    centred: bool = False


def operand_positions(node: Node) -> list[int]:
    """Positions of the inputs that carry a scale of their own: no weights, biases or integer constants."""
    op = spec(node.op)
    return [i for i, t in enumerate(node.inputs) if t >= 0 and i not in (op.weight_input, op.bias_input)]


def weights(graph: Graph) -> list[tuple[Node, Tensor, int]]:
    """(node, weight tensor, channel axis) of every op with weights."""
    found = []
    for node in graph.nodes:
        op = spec(node.op)
        if op.weight_input >= 0:
            found.append((node, graph.tensors[node.inputs[op.weight_input]], op.weight_axis))
    return found


def quantized_operands(graph: Graph) -> list[int]:
    """Ids of all tensors with a per-tensor scale: activations and float constants read as operands."""
    ids = [t.id for t in graph.activations()]
    for node in graph.nodes:
        for i in operand_positions(node):
            tensor = graph.tensors[node.inputs[i]]
            if tensor.is_constant and tensor.dtype == "FLOAT32":
                ids.append(tensor.id)
    return [t for t in dict.fromkeys(ids) if not graph.stays_inside(t)]


def _tied_inputs(graph: Graph, node: Node) -> Iterable[int]:
    contract = spec(node.op).out
    if not isinstance(contract, Tied) or not node.is_int8:
        return ()
    positions = operand_positions(node) if contract.inputs is None else contract.inputs
    return [node.inputs[i] for i in positions if graph.tensors[node.inputs[i]].dtype == "FLOAT32"]


def groups(graph: Graph) -> list[Group]:
    """Partition all tensors with a per-tensor scale into groups that share it.

    Raises:
        PlanError: two prescribed scales meet in one group.
    """
    operands = quantized_operands(graph)
    joined = DisjointSet(operands)
    for node in graph.nodes:
        for source in _tied_inputs(graph, node):
            for out in node.outputs:
                joined.merge(out, source)
    members: dict[int, list[int]] = {}
    for t in operands:
        members.setdefault(joined[t], []).append(t)
    return [_group(graph, tuple(ids)) for ids in members.values()]


def _group(graph: Graph, members: tuple[int, ...]) -> Group:
    fixed: set[tuple[float, int]] = set()
    roots, symmetric, low, floors = [], False, False, []
    for t in members:
        producer = graph.producer(t)
        contract = spec(producer.op).out if producer is not None and producer.is_int8 else None
        if isinstance(contract, Fixed):
            fixed.add((contract.scale, contract.zero_point))
        if producer is not None and (floor := spec(producer.op).floor) is not None:
            floors.append(floor)
        if not isinstance(contract, Tied) or contract.rounds:
            roots.append(t)
        for user in graph.users(t):
            if not user.is_int8:
                continue
            op = spec(user.op)
            positions = [i for i, v in enumerate(user.inputs) if v == t]
            symmetric |= any(i in op.symmetric_inputs for i in positions)
            low |= op.input_zero_point == -128
    made = [graph.producer(t) for t in roots]
    # RELU becomes a QUANTIZE whose codes begin at 0, and saturates there
    rectified = [node is not None and node.op == "RELU" and node.is_int8 for node in made]
    low |= bool(rectified) and not symmetric and not graph.centred and all(rectified)
    if len(fixed) > 1:
        names = ", ".join(graph.tensors[t].name for t in members[:4])
        raise PlanError(f"tensors {names} must share one scale, but two kernels prescribe different ones")
    centred = graph.centred and not (fixed or symmetric or low)
    return Group(members, tuple(roots), next(iter(fixed), None), symmetric, low, min(floors, default=None), centred)


def _describe(quant: TensorQuant) -> str:
    return f"scale {quant.scale[0]:.6g}, zero point {quant.zero_point[0]}"


def check_plan(graph: Graph, plan: QuantPlan) -> None:
    """Verify that TFLite can express ``plan`` on ``graph``; all reasons at once.

    Raises:
        PlanError: tensors missing from the plan, channel-wise activations, scales that differ where they must
            agree, zero points that a kernel does not take, ops without an int8 kernel.
    """
    bad = []
    for group in groups(graph):
        bad += _check_group(graph, plan, group)
    for node, weight, axis in weights(graph):
        quant = plan.tensors.get(weight.name)
        if quant is None:
            bad.append(f"{weight.name!r}: missing from the plan")
        elif any(quant.zero_point):
            z = next(z for z in quant.zero_point if z)
            bad.append(f"{node.op} {weight.name!r}: weight zero point is {z}, int8 weights need 0; use symmetric")
        elif quant.axis != axis or len(quant.scale) != weight.shape[axis]:
            bad.append(f"{node.op} {weight.name!r}: {len(quant.scale)} scales on axis {quant.axis}, got to be "
                       f"{weight.shape[axis]} on axis {axis}")  # fmt: skip
    for node in graph.nodes:
        op = spec(node.op)
        if op.integer is None and node.is_int8:
            name = graph.tensors[node.outputs[0]].name
            other = "" if plan.profile == "cpu" else ", or build with --no-integer"
            bad.append(f"{node.op} {name!r} has no int8 kernel that is right: rewrite it{other}")
    if bad:
        raise PlanError(f"{len(bad)} problems: " + "; ".join(bad[:8]))


def _check_group(graph: Graph, plan: QuantPlan, group: Group) -> list[str]:
    bad, first = [], None
    for t in group.members:
        name = graph.tensors[t].name
        quant = plan.tensors.get(name)
        if quant is None:
            bad.append(f"{name!r}: missing from the plan")
            continue
        if quant.codes is not Codes.UNIFORM:
            bad.append(f"{name!r} has {quant.codes} codes: TFLite's are uniform; this method runs in simulation only")
            continue
        if quant.axis is not None:
            bad.append(f"activation {name!r} is channel-wise: TFLite has one scale a tensor; fold it or use layer")
            continue
        if first is not None and (quant.scale, quant.zero_point) != (first.scale, first.zero_point):
            bad.append(f"{name!r}: {_describe(quant)} must equal its group's {_describe(first)}")
        first = first or quant
        if group.fixed and (abs(quant.scale[0] / group.fixed[0] - 1) > 1e-6 or quant.zero_point[0] != group.fixed[1]):
            bad.append(f"{name!r}: {_describe(quant)}, the kernel prescribes {group.fixed}")
        if group.symmetric and quant.zero_point[0] != 0:
            bad.append(f"{name!r}: zero point {quant.zero_point[0]}, its reader needs 0; use scheme symmetric")
        if group.symmetric and quant.limits == (-128, 127) and group.fixed is None:
            bad.append(f"{name!r}: a right operand must leave out the code -128, arm64 kernels overflow there")
        if group.centred and quant.zero_point[0] != 0:
            bad.append(f"{name!r}: zero point {quant.zero_point[0]}, the target takes 0 alone; calibrate for it")
        if group.low_at_zero and quant.zero_point[0] != -128:
            bad.append(f"{name!r}: zero point {quant.zero_point[0]}, its reader needs -128")
    return bad
