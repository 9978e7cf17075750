"""What a pass says of a graph behind it holds, wherever in a graph its ops stand and however often."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from qhyvit.graph import edit
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency.profile import Sizes
from qhyvit.ops import spec
from qhyvit.passes import all_passes, passes_of
from qhyvit.passes.shared.graph_pass import Phase
from qhyvit.sim.run import Executor
from tests._graphs import Builder
from tests._pass_graphs import EDITS, PIECES, SIZES, SMALL, TYPED, built
from tests._plans import graph_of
from tests._targets import KINDS

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


def adds_in_its_bias(graph: Graph, node: Node) -> bool:
    """No constant a channel is added to what a layer gives to nobody else."""
    if node.op != "ADD" or not any(_known(graph, node)):
        return True
    data, constant = node.inputs if _known(graph, node)[1] else node.inputs[::-1]
    made, shape = graph.producer(data), _shape(graph, constant)
    alone = made is not None and spec(made.op).bias_input > 0 and graph.users(data) == (node,)
    plain = made is not None and getattr(made.attrs, "fused_activation_function", "NONE") == "NONE"
    small = math.prod(shape) in (1, *shape[-1:]) and _shape(graph, data) == _shape(graph, node.outputs[0])
    return not (alone and plain and small)


def scales_no_layer(graph: Graph, node: Node) -> bool:
    """No constant factor a channel between what is computed and linears that alone read it."""
    users = graph.users(node.outputs[0])
    if node.op != "MUL" or sum(_known(graph, node)) != 1 or node.attrs.fused_activation_function != "NONE" or not users:
        return True
    constant = node.inputs[_known(graph, node).index(True)]
    small = math.prod(_shape(graph, constant)) in (1, *_shape(graph, constant)[-1:])
    out = node.outputs[0]
    linears = all(u.op == "FULLY_CONNECTED" and u.inputs[0] == out and _known(graph, u)[1] for u in users)
    return not (small and linears)


def reads_tokens_as_they_are(graph: Graph, node: Node) -> bool:
    made, users = graph.producer(node.inputs[0]), graph.users(node.outputs[0])
    if node.op != "FULLY_CONNECTED" or not _known(graph, node)[1] or made is None or made.op != "RESHAPE" or not users:
        return True
    kept = _shape(graph, made.inputs[0])[-1:] == _shape(graph, node.inputs[0])[-1:]
    return not kept or any(u.op != "RESHAPE" for u in users)


def has_a_range_of_its_own(graph: Graph, node: Node) -> bool:
    """No sum is both the right operand of a product and read elsewhere."""
    made = graph.producer(node.inputs[1]) if node.op == "BATCH_MATMUL" else None
    if made is None or made.op not in ("ADD", "SUB"):
        return True
    squares = node.inputs[0] == node.inputs[1] and _shape(graph, node.outputs[0])[-2:] == (1, 1)
    return squares or all(u.inputs[1:] == node.inputs[1:] != u.inputs[:1] for u in graph.users(node.inputs[1]))


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
    "bias_in_layer": adds_in_its_bias, "channel_factors": scales_no_layer, "flat_layers": reads_tokens_as_they_are,
    "own_right_operand": has_a_range_of_its_own,
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


@pytest.mark.parametrize("seed", range(12))
def test_what_a_pass_says_of_its_result_holds_of_every_node(seed: int) -> None:
    """Five pieces in a graph, each among others twice in all seeds."""
    every = np.random.default_rng(seed // 6).permutation(sorted(set(PIECES) - set(TYPED))).tolist()
    for names in batched(every[seed % 6 :: 6]):
        check_promises(names, seed)


def batched(names: list[str]) -> Iterator[list[str]]:
    return (names[i : i + 5] for i in range(0, len(names), 5))


def check_promises(names: list[str], seed: int) -> None:
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


# the pieces and sizes that a pass is for, and sizes by one off
LIMITS: list[tuple[str, str, dict[str, int], dict[str, int]]] = [
    ("few_rows", "few rows", {"few_rows": 3, "many_rows": 16}, {"few_rows": 2, "many_rows": 16}),
    ("few_rows", "few rows", {"few_rows": 3, "many_rows": 16}, {"few_rows": 3, "many_rows": 17}),
    ("right_rows", "product 2 False False", {"columns": 96}, {"columns": 97}),
    ("attention_parts", "heads", {"cached": 1024}, {"cached": 1025}),
    ("output_pairs", "pairs", {"lanes": 10}, {"lanes": 9}), ("pixel_pairs", "stem", {"channels": 6}, {"channels": 5}),
    ("short_products", "row", {"longest_product": 95}, {"longest_product": 96}),
    ("short_transposes", "fold", {"largest_transpose": 23}, {"largest_transpose": 24}),
    ("short_strides", "far", {"longest_stride": 1}, {"longest_stride": 2}),
    ("flat_means", "flat mean", {"longest_mean": 5}, {"longest_mean": 6}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "piece", "within", "beyond"), LIMITS)
def test_a_pass_begins_where_its_target_says(name: str, piece: str, within: dict, beyond: dict) -> None:
    graph, edits = of_pieces([piece], 0), all_passes()[name]

    def found(limits: dict[str, int]) -> Graph:
        return edits.apply(graph, Sizes(**limits) if edits.sized else replace(SMALL, **limits))

    assert [n.op for n in found(within).nodes] != [n.op for n in graph.nodes]
    assert found(beyond).nodes == graph.nodes


@pytest.mark.parametrize("piece", ["sample norm", "sample norm without eps"])
def test_a_norm_of_a_map_has_its_sum_of_squares_whatever_its_eps(piece: str) -> None:
    found = EDITS["sample_norms"](built(piece)[0])
    assert found is not None
    squares = [n for n in found.nodes if n.op == "FULLY_CONNECTED" and n.inputs[0] == n.inputs[1]]
    assert len(squares) == 1


@pytest.mark.parametrize(("name", "piece"), [
    ("layer_norms", "norm"), ("exponentials", "softmax attention"), ("float_sums_of_squares", "int16 row"),
    ("int16_sums", "float mean"), ("equal_nodes", "MUL itself"), ("few_rows", "product 2 True True"),
    ("rectifiers", "relu"), ("one_split", "slices"), ("own_layers", "conv"), ("pixel_batches", "turn"),
    ("prescribed_ranges", "softmax attention"), ("broadcast_ranks", "tokens"), ("guarded_roots", "norm"),
    ("constant_product", "product"), ("row_layers", "conv"), ("sample_norms", "norm"), ("channel_order", "conv"),
    ("padded_columns", "attention"), ("padded_pools", "pad"), ("own_right_operand", "gram"),
])  # fmt: skip
def test_what_a_pass_is_not_for_stays(name: str, piece: str) -> None:
    graph = built(piece)[0]
    found = EDITS[name](graph)
    assert found is not None
    assert found.nodes == graph.nodes


@pytest.mark.parametrize("power", [4.5, -4.5, 0.25, 0.0])
def test_other_powers_stay(power: float) -> None:
    b = Builder(np.random.default_rng(0))
    y = b.add("POW", b.add("ABS", b.input), b.tensor("power", (), data=np.array(power, np.float32)))
    graph = b.graph(y)
    assert EDITS["powers"](graph) is graph


def test_a_root_may_be_kept_from_a_tenthousandth_and_not_from_more() -> None:
    for floor, goes in ((1e-4, True), (1.01e-4, False)):
        b = Builder(np.random.default_rng(0))
        root = b.add("SQRT", b.add("MUL", b.input, b.input))
        low = b.tensor("floor", (), data=np.array(floor, np.float32))
        graph = b.graph(b.add("DIV", b.input, b.add("MAXIMUM", root, low)))
        assert (EDITS["quotients"](graph) is not graph) == goes


def test_near_zero_a_floor_counts_as_before() -> None:
    b = Builder(np.random.default_rng(0))
    root = b.add("SQRT", b.add("MUL", b.input, b.input))
    floor = b.tensor("floor", (), data=np.array(1e-5, np.float32))
    graph = b.graph(b.add("DIV", b.input, b.add("MAXIMUM", root, floor)))
    found = EDITS["quotients"](graph)
    assert found is not None
    pixels = torch.linspace(-1e-7, 1e-7, 48, dtype=torch.float64).reshape(1, 4, 4, 3)
    one, two = (Executor(g, torch.float64).rows(pixels) for g in (graph, found))
    assert torch.allclose(two, one, rtol=1e-3, atol=0.0)


def test_a_bias_that_is_computed_stays_in_its_layer() -> None:
    b = Builder(np.random.default_rng(0))
    t = b.reshape(b.input, 16, 3)
    graph = b.graph(b.add("FULLY_CONNECTED", t, b.add("TANH", t), b.reshape(b.conv(b.input, 1), 16)))
    assert EDITS["matrix_product"](graph) is graph


@pytest.mark.parametrize("name", PIECES)
def test_transposes_move_fewer_values_or_all_is_as_it_was(name: str) -> None:
    def moved(graph: Graph) -> int:
        return sum(math.prod(_shape(graph, n.outputs[0])) for n in graph.nodes if n.op == "TRANSPOSE")

    graph = of_pieces([name, "relu"], 1)
    found = EDITS["sunk_transposes"](graph)
    assert found is graph or (found is not None and moved(found) < moved(graph))


@pytest.mark.parametrize(("length", "parts"), [(8192, 1), (8193, 1), (9216, 2)])
def test_only_rows_of_long_reductions_are_taken_apart(length: int, parts: int) -> None:
    """One row of 8193 values has no other axis to go over in a second step."""
    rows = 1 if parts == 1 else 3
    axes = np.array([1, 2], np.int32)
    tensors = {0: Tensor(0, "x", (1, rows, length // rows), "FLOAT32"), 1: Tensor(1, "axes", (2,), "INT32", axes),
               2: Tensor(2, "y", (1,), "FLOAT32")}  # fmt: skip
    graph = Graph(tensors, (Node("MEAN", spec("MEAN").attrs(), (0, 1), (2,)),), (0,), (2,))
    found = EDITS["short_reductions"](graph)
    assert found is not None
    assert [n.op for n in found.nodes] == ["MEAN"] * parts


@pytest.mark.parametrize(("images", "axes"), [(1, 5), (2, 6)])
def test_images_unfold_over_as_few_axes_as_they_need(images: int, axes: int) -> None:
    """A TRANSPOSE of five axes is quicker than one of six."""
    b = Builder(np.random.default_rng(0))
    pads, block = b.tensor("none", (2, 2), "INT32", np.zeros((2, 2), np.int32)), b.integers(2, 2)
    x = b.reshape(b.conv(b.input), images, 4 // images, 4, 6)
    graph = b.graph(b.add("BATCH_TO_SPACE_ND", b.add("RELU", b.add("SPACE_TO_BATCH_ND", x, block, pads)), block, pads))
    found = EDITS["batches_as_copies"](graph)
    assert found is not None
    assert [len(_shape(found, n.outputs[0])) for n in found.nodes if n.op == "TRANSPOSE"] == [axes, axes]


# what runs for one target and not for all, by the target that tests build for
ONLY = {
    "attention_parts": {"cpu"}, "guarded_roots": {"cpu"}, "reciprocals": set(KINDS) - {"cpu"},
    "sums_as_means": {"tflm"}, "flat_means": {"ethos-u55", "ethos-u85"}, "short_products": {"ethos-u55"},
    "short_strides": {"ethos-u55"}, "short_transposes": {"ethos-u55"},
}  # fmt: skip


def test_passes_run_for_the_targets_that_need_them() -> None:
    ran = {kind: {p.name for phase in Phase for p in passes_of(phase, found)} for kind, found in KINDS.items()}
    assert {name: {k for k in KINDS if name in ran[k]} for name in all_passes()} == {
        name: ONLY.get(name, set(KINDS)) for name in all_passes()
    }
