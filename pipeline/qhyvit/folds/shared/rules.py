"""What each op does with a channel scale: it asks for the scales that its operands and its result must have then."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qhyvit.folds.shared.scale import CannotScaleError, Scale, Scaling, along, last_axis, narrow
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import all_ops, spec
from qhyvit.ops.shared.copies import copied, copied_back
from qhyvit.ops.shared.layer import layer_of
from qhyvit.ops.shared.reduce import axes_of
from qhyvit.ops.shared.spec import Copies


def _weighted(scaling: Scaling, node: Node) -> None:
    """An op with weights: divide output channels, multiply input channels."""
    layer = layer_of(scaling.graph, node)
    assert layer is not None
    if layer.out in scaling.tensors and scaling.once(node, 1):
        r = last_axis(scaling.tensors[layer.out], node.op)
        scaling.scale_constant(layer.weight, along(1.0 / r, len(layer.weight_shape), layer.axis))
        if layer.bias >= 0:
            scaling.scale_constant(layer.bias, 1.0 / r)
    if layer.data in scaling.tensors and scaling.once(node, 0):
        factor = layer.along_data(last_axis(scaling.tensors[layer.data], node.op))
        if factor is None:
            raise CannotScaleError(f"{node.op} reads several channels of the data with one weight")
        scaling.scale_constant(layer.weight, factor)


def _homogeneous(scaling: Scaling, node: Node, operands: int | None = None) -> None:
    """Sums, the largest of two, absolute values: the first ``operands``, else all, and the result carry one scale."""
    read = node.inputs[:operands]
    known = [t for t in (*read, *node.outputs) if t in scaling.tensors]
    shape = scaling.graph.tensors[node.outputs[0]].shape
    r = np.broadcast_to(scaling.tensors[known[0]], shape)
    scaling.want(node.outputs[0], r)
    for t in read:
        scaling.want(t, narrow(r, scaling.graph.tensors[t].shape))


def _product(scaling: Scaling, node: Node) -> None:
    """MUL: exactly one operand hands its scale to the result, a square squares it; other scales on both are refused."""
    a, b = node.inputs
    out = node.outputs[0]
    carrying = [r for t in (a, b) if (r := scaling.scale_of(t)) is not None]
    if a == b:
        if not scaling.squares:
            raise CannotScaleError("MUL of a scaled operand with itself")
        scaling.want(a, carrying[0] if carrying else np.sqrt(scaling.tensors[out]))
        scaling.want(out, scaling.tensors[a] ** 2)
        return
    if b in scaling.absorbing:
        _end(scaling, node)
        return
    if len(carrying) > 1:
        raise CannotScaleError("MUL of two scaled operands")
    if carrying:
        scaling.want(out, np.broadcast_to(carrying[0], scaling.graph.tensors[out].shape))
        return
    r, shapes = scaling.tensors[out], scaling.graph.tensors
    for t in (a, b):  # the operand as wide as the result and with a producer that may take the scale
        if shapes[t].shape == shapes[out].shape:
            scaling.want(t, r)
            return
    for t in (a, b):  # or a constant that has all channels
        if shapes[t].is_constant:
            scaling.want(t, narrow(r, shapes[t].shape))
            return
    raise CannotScaleError("MUL without a full operand")


def _end(scaling: Scaling, node: Node) -> None:
    """MUL by a constant that gives the scale back."""
    source, constant = node.inputs
    if source not in scaling.tensors:
        raise CannotScaleError("a scale on what was freed of it")
    if scaling.once(node, 3):
        shape = scaling.graph.tensors[constant].shape
        scaling.scale_constant(constant, narrow(scaling.tensors[source], shape))


def _copy(scaling: Scaling, node: Node) -> None:
    """What only copies values: results have the scales of what they copy; some values alone say nothing of the rest."""
    graph, source = scaling.graph, [t for t in node.inputs if t >= 0 and scaling.graph.tensors[t].dtype == "FLOAT32"]
    if len(source) != 1:
        raise CannotScaleError(f"{node.op} of several operands does not let a channel scale pass")
    if source[0] in scaling.tensors:
        for out, part in zip(node.outputs, copied(graph, node, scaling.tensors[source[0]]), strict=True):
            scaling.want(out, part)
    elif spec(node.op).copies is Copies.ONCE:
        scaling.want(source[0], copied_back(graph, node, scaling.tensors[node.outputs[0]]))
    else:
        raise CannotScaleError("a scale on a part of a tensor")


def _pad(scaling: Scaling, node: Node) -> None:
    """PAD: zeros have any scale."""
    source, out = node.inputs[0], node.outputs[0]
    if source in scaling.tensors:
        scaling.want(out, _pad_to(node, scaling.graph, scaling.tensors[source]))
    else:
        scaling.want(source, _pad_back(node, scaling.graph, scaling.tensors[out]))


def _pad_to(node: Node, graph: Graph, r: np.ndarray) -> np.ndarray:
    return np.pad(r, graph.constant(node.inputs[1]), mode="edge")


def _pad_back(node: Node, graph: Graph, r: np.ndarray) -> np.ndarray:
    pads = graph.constant(node.inputs[1])
    return r[tuple(slice(int(a), n - int(b)) for (a, b), n in zip(pads, r.shape, strict=True))]


def _parts(scaling: Scaling, node: Node) -> None:
    """CONCATENATION, once all that is known of its parts is known."""
    if scaling.scale_of(node.outputs[0]) is None and any(scaling.scale_of(t) is None for t in node.inputs):
        scaling.later.append(node)
    else:
        concatenation(scaling, node)


def concatenation(scaling: Scaling, node: Node) -> None:
    """CONCATENATION: the parts carry the whole's channels.

    Where only some parts have a scale, the others get one where they can take any: that of what a depthwise convolution
    reads, channel by channel, and 1 else.
    """
    graph, (out,), axis = scaling.graph, node.outputs, node.attrs.axis
    whole = scaling.scale_of(out)
    if whole is None:
        whole = np.concatenate([_part_scale(scaling, t) for t in node.inputs], axis)
        scaling.want(out, whole)
    ends = np.cumsum([graph.tensors[t].shape[axis] for t in node.inputs])[:-1]
    for t, part in zip(node.inputs, np.split(whole, ends, axis), strict=True):
        if scaling.scale_of(t) is not None or not np.allclose(part, 1.0, rtol=1e-9):
            scaling.want(t, part)


def _part_scale(scaling: Scaling, tensor: int) -> np.ndarray:
    known, shape = scaling.scale_of(tensor), scaling.graph.tensors[tensor].shape
    if known is not None:
        return np.broadcast_to(known, shape)
    made = scaling.graph.producer(tensor)
    read = scaling.tensors.get(made.inputs[0]) if made is not None and made.op == "DEPTHWISE_CONV_2D" else None
    if read is None or read.shape[-1] != shape[-1]:
        return np.ones(shape)
    return np.broadcast_to(last_axis(read, "DEPTHWISE_CONV_2D"), shape)


def _mean(scaling: Scaling, node: Node) -> None:
    """MEAN: the scale passes where it is constant along the axes that are averaged."""
    source, out = node.inputs[0], node.outputs[0]
    graph = scaling.graph
    rank = len(graph.tensors[source].shape)
    axes = axes_of(graph.constant(node.inputs[1]), rank)
    if source not in scaling.tensors:
        raise CannotScaleError("a scale on the result of MEAN")
    r = scaling.tensors[source]
    first = r[tuple(slice(0, 1) if i in axes else slice(None) for i in range(rank))]
    if not np.allclose(r, np.broadcast_to(first, r.shape), rtol=1e-9):
        raise CannotScaleError("MEAN over the scaled axis")
    scaling.want(out, first.reshape(graph.tensors[out].shape))


def _matmul(scaling: Scaling, node: Node) -> None:
    """BATCH_MATMUL of [.., M, K] and [.., K, N]: r on M or N passes, r on K asks for 1 / r on the other operand.

    The right operand may lie as [.., N, K].
    """
    a, b = node.inputs
    out = node.outputs[0]
    if a == b or node.attrs.adj_x:
        raise CannotScaleError("BATCH_MATMUL in a form that does not let a scale pass")
    if out in scaling.tensors and a not in scaling.tensors and b not in scaling.tensors:
        r = scaling.tensors[out]
        row = r[..., :1, :]
        if not np.allclose(r, np.broadcast_to(row, r.shape), rtol=1e-9):
            raise CannotScaleError("BATCH_MATMUL result scaled along its rows")
        scaling.want(b, _for_operand(_turned(row, node, b), scaling.graph.tensors[b].shape))
        return
    for t, other, contracted in ((a, b, -1), (b, a, -2)):
        if t in scaling.tensors:
            _matmul_operand(scaling, node, t, other, contracted)
            return


def _turned(r: Scale, node: Node, t: int) -> Scale:
    """From [.., K, N] to how the right operand ``t`` lies, or back; the left one stays."""
    return r.swapaxes(-1, -2) if node.attrs.adj_y and t == node.inputs[1] else r


def _for_operand(r: Scale, shape: tuple[int, ...]) -> Scale:
    """The scale of an operand that may lack leading axes of the other one, or have more."""
    return narrow(np.broadcast_to(r, np.broadcast_shapes(r.shape, shape)), shape)


def _matmul_operand(scaling: Scaling, node: Node, t: int, other: int, contracted: int) -> None:
    out, shape = node.outputs[0], scaling.graph.tensors
    r = _turned(scaling.tensors[t], node, t)
    free = -3 - contracted  # -2 for the left operand, -1 for the right one
    along_free, along_k = r.take([0], axis=contracted), r.take([0], axis=free)
    if r.shape[free] > 1 and np.allclose(r, along_free, rtol=1e-9):
        scaling.want(out, np.broadcast_to(along_free, shape[out].shape))
    elif np.allclose(r, along_k, rtol=1e-9):
        inverse = _turned(1.0 / along_k.swapaxes(-1, -2), node, other)
        scaling.want(other, _for_operand(inverse, shape[other].shape))
        scaling.done.add((out, 2))
    else:
        raise CannotScaleError("BATCH_MATMUL operand scaled along both axes")


def _matmul_fits(scaling: Scaling, node: Node) -> None:
    """Refuse operands' scales whose product is not the result's: for all k, a[m, k] * b[k, n] has to be out[m, n]."""
    shapes = scaling.graph.tensors
    a, b, out = (
        np.ones(shapes[t].shape) if (r := scaling.scale_of(t)) is None else r for t in (*node.inputs, *node.outputs)
    )
    b = _turned(b, node, node.inputs[1])
    along_k, back = a / a[..., :1], b / b[..., :1, :]  # relative to k = 0; 1 on one operand undoes 1 on the other
    rows_alike, columns_alike = np.allclose(along_k, along_k[..., :1, :]), np.allclose(back, back[..., :1])
    undone = rows_alike and columns_alike and np.allclose(along_k[..., 0, :] * back[..., 0], 1.0, rtol=1e-9)
    if not undone or not np.allclose(a[..., :1] * b[..., :1, :], out, rtol=1e-9):
        raise CannotScaleError("BATCH_MATMUL whose operands and result have scales that do not fit together")


def _prelu(scaling: Scaling, node: Node) -> None:
    """PRELU: a positive scale of x passes; alpha has none."""
    if scaling.scale_of(node.inputs[1]) is not None:
        raise CannotScaleError("PRELU with a scaled alpha")
    _homogeneous(scaling, node, 1)


RULES: dict[str, Callable[[Scaling, Node], None]] = {
    **{name: _weighted for name, op in all_ops().items() if op.layer is not None},
    **{name: _copy for name, op in all_ops().items() if op.copies is not None},
    **{name: _homogeneous for name, op in all_ops().items() if op.homogeneous},
    "MUL": _product,
    "PAD": _pad,
    "CONCATENATION": _parts,
    "MEAN": _mean,
    "BATCH_MATMUL": _matmul,
    "PRELU": _prelu,
}
# what is looked at again at the end
PRODUCTS = {"MUL": _product, "BATCH_MATMUL": _matmul_fits, "CONCATENATION": concatenation}
