"""What a pass says of a graph behind it holds, wherever in a graph its ops stand and however often."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node
from qhyvit.ops import spec
from tests._graphs import Builder
from tests._pass_graphs import EDITS, PIECES, SIZES, SMALL, TYPED
from tests._plans import graph_of

Promise = Callable[[Graph, Node], bool]  # of every node


def _known(graph: Graph, node: Node) -> list[bool]:
    return [t >= 0 and graph.tensors[t].is_constant for t in node.inputs]


def _shape(graph: Graph, tensor: int) -> tuple[int, ...]:
    return graph.tensors[tensor].shape


def without(*ops: str) -> Promise:
    return lambda graph, node: node.op not in ops


def _reads(graph: Graph, node: Node) -> list[str]:
    """The ops that make what ``node`` reads."""
    return [made.op for t in node.inputs if (made := graph.producer(t)) is not None]


def has_flat_bias(graph: Graph, node: Node) -> bool:
    position = spec(node.op).bias_input
    bias = node.inputs[position] if 0 <= position < len(node.inputs) else -1
    return position < 0 or (bias >= 0 and len(_shape(graph, bias)) == 1)


def owns_constants(graph: Graph, node: Node) -> bool:
    mine = [t for t, known in zip(node.inputs, _known(graph, node), strict=True) if known]
    floats = [t for t in mine if graph.tensors[t].dtype == "FLOAT32"]
    return all(graph.users(t) == (node,) and node.inputs.count(t) == 1 for t in floats)


def has_no_constant_product(graph: Graph, node: Node) -> bool:
    return node.op != "BATCH_MATMUL" or sum(_known(graph, node)) != 1


def has_no_turned_constant(graph: Graph, node: Node) -> bool:
    return node.op != "BATCH_MATMUL" or not (_known(graph, node)[0] and node.attrs.adj_y)


def has_constant_weights(graph: Graph, node: Node) -> bool:
    return node.op != "FULLY_CONNECTED" or _known(graph, node)[1]


def is_narrower_than_its_map(graph: Graph, node: Node) -> bool:
    return node.op != "CONV_2D" or _shape(graph, node.inputs[1])[1:3] != (1, *_shape(graph, node.inputs[0])[2:3])


def reads_no_reshape(graph: Graph, node: Node) -> bool:
    if node.op != "RESHAPE" or (made := graph.producer(node.inputs[0])) is None or made.op != "RESHAPE":
        return True
    return any(u.op != "RESHAPE" for u in graph.users(made.outputs[0]))


def reads_rows(graph: Graph, node: Node) -> bool:
    if node.op != "BATCH_MATMUL" or node.attrs.adj_y or node.inputs[0] == node.inputs[1]:
        return True
    right = graph.tensors[node.inputs[1]]
    return right.is_constant or right.shape[-1] == 1


def packs_the_few(graph: Graph, node: Node) -> bool:
    if node.op != "BATCH_MATMUL" or any(_known(graph, node)) or node.attrs.adj_x or not node.attrs.adj_y:
        return True
    left, right = (_shape(graph, t) for t in node.inputs)
    return not len(left) == len(right) == 2 or left[0] > SIZES.few_rows or right[0] < SIZES.many_rows


def divides_by_no_constant(graph: Graph, node: Node) -> bool:
    return node.op != "DIV" or not _known(graph, node)[1]


def is_no_short_power(graph: Graph, node: Node) -> bool:
    if node.op != "POW" or not _known(graph, node)[1]:
        return True
    power = float(graph.constant(node.inputs[1]))
    return abs(power) > 4 or not (2 * power).is_integer()


def is_short_mean(graph: Graph, node: Node) -> bool:
    if node.op != "MEAN":
        return True
    shape, axes = _shape(graph, node.inputs[0]), sorted(graph.constant(node.inputs[1]).ravel().tolist())
    last = axes == list(range(len(shape) - len(axes), len(shape)))
    flat = len(shape) == 4 and shape[:2] == (1, 1) and axes == [3]
    return not last or (flat and shape[3] <= (SMALL.longest_mean or 0))


def is_short_product(graph: Graph, node: Node) -> bool:
    if node.op != "BATCH_MATMUL" or math.prod(_shape(graph, node.outputs[0])) > 1:
        return True
    return _shape(graph, node.inputs[0])[-1] <= (SMALL.longest_product or 0)


def is_short_transpose(graph: Graph, node: Node) -> bool:
    if node.op != "TRANSPOSE" or graph.constant(node.inputs[1]).tolist() != [2, 0, 3, 1, 4]:
        return True
    return math.prod(_shape(graph, node.inputs[0])[2:]) <= (SMALL.largest_transpose or 0)


def has_short_strides(graph: Graph, node: Node) -> bool:
    """One axis goes at a time, and only where few results lie along it."""
    far = getattr(node.attrs, "stride_h", 1) > 1 and _shape(graph, node.outputs[0])[1] <= 4
    return not (node.op == "CONV_2D" and node.attrs.padding == "VALID" and far)


def undoes_no_transpose(graph: Graph, node: Node) -> bool:
    made = graph.producer(node.inputs[0])
    if node.op != "TRANSPOSE" or made is None or made.op != "TRANSPOSE":
        return True
    order = graph.constant(made.inputs[1])[graph.constant(node.inputs[1])].tolist()
    return order != sorted(order)


def is_attention_in_parts(graph: Graph, node: Node) -> bool:
    shape = _shape(graph, node.outputs[0])
    alone = node.op == "SOFTMAX" and len(shape) == 3 and shape[0] == 4 and _reads(graph, node) == ["BATCH_MATMUL"]
    return not alone or [u.op for u in graph.users(node.outputs[0])] != ["BATCH_MATMUL"]


PROMISES: dict[str, Promise] = {
    "explicit_bias": has_flat_bias, "own_constants": owns_constants, "batched_layers": has_no_constant_product,
    "constant_product": has_no_turned_constant, "matrix_product": has_constant_weights,
    "row_layers": is_narrower_than_its_map, "one_reshape": reads_no_reshape, "right_rows": reads_rows,
    "few_rows": packs_the_few, "quotients": divides_by_no_constant, "powers": is_no_short_power,
    "flat_means": is_short_mean, "short_products": is_short_product, "short_transposes": is_short_transpose,
    "short_strides": has_short_strides, "attention_parts": is_attention_in_parts,
    "hard_swishes": without("HARD_SWISH"), "squares": without("SQUARED_DIFFERENCE", "SQUARE"),
    "sums_as_means": without("SUM"), "reciprocals": without("DIV"), "rectifiers": without("LEAKY_RELU", "PRELU"),
    "batches_as_copies": without("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"), "padded_pools": without("PADV2"),
    "padded_columns": without("PADV2"), "sunk_transposes": undoes_no_transpose,
    "guarded_roots": lambda graph, node: node.op != "RSQRT" or _reads(graph, node) != ["MEAN"],
}  # fmt: skip
# pieces that hold an op which a pass leaves alone for a reason of its own
LEFT = {
    "padded_pools": {"ones"}, "padded_columns": {"padded pool"},
    "sunk_transposes": {"unfold", "fold"},
}  # fmt: skip


def of_pieces(names: list[str], seed: int) -> Graph:
    """Each piece reads a map of its own behind the same convolution; all results are outputs."""
    b = Builder(np.random.default_rng(seed))
    outputs = [PIECES[name](b, b.add("TANH", b.conv(b.input))) for name in names]
    return edit.without_unread(graph_of(b, *[b.linear(y, 3) for y in outputs]))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(st.sampled_from(sorted(set(PIECES) - set(TYPED))), min_size=2, max_size=5), st.integers(0, 2**16))
def test_what_a_pass_says_of_its_result_holds_of_every_node(names: list[str], seed: int) -> None:
    graph = of_pieces(names, seed)
    for name, promise in PROMISES.items():
        found = EDITS[name](graph)
        assert found is not None
        if not LEFT.get(name, set()) & set(names):
            assert [n.op for n in found.nodes if not promise(found, n)] == [], f"{name} of {names}"


@pytest.mark.parametrize("name", PROMISES)
def test_the_pieces_do_not_hold_what_is_promised_from_the_start(name: str) -> None:
    graph = of_pieces(sorted(set(PIECES) - set(TYPED)), 0)
    assert not all(PROMISES[name](graph, n) for n in graph.nodes)
