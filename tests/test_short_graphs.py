"""Rewrites that make the exported graph shorter, and those that take it apart again for integers."""

import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.ops import spec
from qhyvit.passes import (
    batches_as_copies,
    broadcast_ranks,
    constant_product,
    flat_layers,
    guarded_roots,
    matrix_product,
    one_reshape,
    one_split,
    own_layers,
    pixel_batches,
    prepared,
    row_layers,
    shortened,
)  # fmt: skip
from qhyvit.sim.run import Executor
from tests._targets import CPU, INTEGER


class Chain:
    """A graph built op by op, shapes by the ops' own rules. Tensor 0 is the input without its axis of images."""

    def __init__(self, *shape):
        axis = np.array([0], np.int32)
        self.tensors = [
            Tensor(0, "x", shape, "FLOAT32"), Tensor(1, "input", (1, *shape), "FLOAT32"),
            Tensor(2, "axis", (1,), "INT32", axis),
        ]  # fmt: skip
        self.nodes = [Node("SUM", spec("SUM").attrs(keep_dims=False), (1, 2), (0,))]
        self.rng = np.random.default_rng(0)

    def constant(self, value):
        data = np.asarray(value)
        data = data.astype(np.float32 if data.dtype.kind == "f" else np.int32)
        kind = "FLOAT32" if data.dtype == np.float32 else "INT32"
        self.tensors.append(Tensor(len(self.tensors), f"c{len(self.tensors)}", data.shape, kind, data))
        return len(self.tensors) - 1

    def values(self, *shape):
        return self.constant(self.rng.normal(size=shape))

    def add(self, op, *inputs, **attrs):
        """An op on tensors; returns its output, or its outputs."""
        known = [self.tensors[t] for t in inputs]
        integers = [t.data if t.dtype == "INT32" else None for t in known]
        made = spec(op).attrs(**attrs)
        shapes = spec(op).infer_shape([t.shape for t in known], made, integers)
        several = bool(shapes) and isinstance(shapes[0], tuple)
        first = len(self.tensors)
        for shape in shapes if several else [shapes]:
            self.tensors.append(Tensor(len(self.tensors), f"t{len(self.tensors)}", tuple(shape), "FLOAT32"))
        outputs = tuple(range(first, len(self.tensors)))
        self.nodes.append(Node(op, made, inputs, outputs))
        return outputs if several else first

    def reshape(self, t, *shape):
        return self.add("RESHAPE", t, self.constant(shape))

    def transpose(self, t, *axes):
        return self.add("TRANSPOSE", t, self.constant(axes))

    def slice(self, t, begin, size):
        return self.add("SLICE", t, self.constant(begin), self.constant(size))

    def graph(self, *outputs):
        graph = Graph({t.id: t for t in self.tensors}, tuple(self.nodes), (1,), outputs)
        graph.check()
        return graph


def ops(graph):
    """Without the one that gives tensor 0."""
    return [n.op for n in graph.nodes[1:]]


def assert_equal(graph, found):
    found.check()
    x = torch.randn(3, *graph.tensors[1].shape[1:], generator=torch.Generator().manual_seed(0))
    mine, theirs = Executor(graph).run(x), Executor(found).run(x)
    assert graph.outputs == found.outputs
    for t in graph.outputs:
        assert found.tensors[t].shape == graph.tensors[t].shape == tuple(theirs[t].shape[1:])
        assert torch.allclose(mine[t], theirs[t], atol=1e-5)


def unfolded_and_folded(high=2, wide=3):
    chain = Chain(1, 4 * high, 5 * wide, 7)
    t = chain.transpose(chain.reshape(0, 4, high, 5, wide, 7), 1, 3, 0, 2, 4)
    t = chain.add("MUL", chain.reshape(t, high * wide, 20, 7), chain.values(high * wide, 20, 1))
    t = chain.transpose(chain.reshape(t, high, wide, 4, 5, 7), 2, 0, 3, 1, 4)
    return chain.graph(chain.reshape(t, 1, 4 * high, 5 * wide, 7))


def test_patches_unfold_and_fold_by_one_op_each():
    graph = unfolded_and_folded()
    found = pixel_batches.apply(graph)
    assert ops(found) == ["SPACE_TO_BATCH_ND", "RESHAPE", "MUL", "RESHAPE", "BATCH_TO_SPACE_ND"]
    assert_equal(graph, found)
    again = one_reshape.apply(batches_as_copies.apply(found))
    assert ops(again) == ops(graph)
    assert_equal(graph, again)


@pytest.mark.parametrize("wrong", [(1, 3, 2, 0, 4), (3, 1, 0, 2, 4)])
def test_other_orders_of_pixels_stay_copies(wrong):
    chain = Chain(1, 8, 8, 7)
    t = chain.transpose(chain.reshape(0, 4, 2, 4, 2, 7), *wrong)
    graph = chain.graph(chain.reshape(t, 4, 16, 7))
    assert pixel_batches.apply(graph).nodes == graph.nodes


def test_copies_that_others_read_stay():
    chain = Chain(1, 8, 8, 7)
    turned = chain.transpose(chain.reshape(0, 4, 2, 4, 2, 7), 1, 3, 0, 2, 4)
    graph = chain.graph(chain.reshape(turned, 4, 16, 7), turned)
    assert pixel_batches.apply(graph).nodes == graph.nodes


@pytest.mark.parametrize("batch", [1, 2])
def test_padding_and_crops_become_pad_and_slice(batch):
    chain = Chain(batch, 5, 4, 3)
    t = chain.add("SPACE_TO_BATCH_ND", 0, chain.constant((2, 3)), chain.constant([(1, 0), (0, 2)]))
    out = chain.add("BATCH_TO_SPACE_ND", t, chain.constant((2, 3)), chain.constant([(1, 0), (0, 2)]))
    graph = chain.graph(out, t)
    found = batches_as_copies.apply(graph)
    assert ops(found) == ["PAD", *["RESHAPE", "TRANSPOSE", "RESHAPE"] * 2, "SLICE"]
    assert_equal(graph, found)
    x = torch.randn(2, batch, 5, 4, 3)
    assert torch.equal(Executor(found).run(x)[out], x)  # folded is what it was


def test_three_equal_slices_are_a_split():
    chain = Chain(2, 6, 5)
    parts = [chain.slice(0, (0, b, 0), (2, 2, 5)) for b in (2, 0, 4)]
    graph = chain.graph(*parts)
    found = one_split.apply(graph)
    assert ops(found) == ["SPLIT"]
    assert_equal(graph, found)


@pytest.mark.parametrize(
    ("begins", "sizes"),
    [((0, 3), (3, 3)), ((0, 2, 4), (2, 2, 1)), ((0, 1, 3), (1, 2, 3)), ((0, 2, 2), (2, 2, 2)), ((0, 2), (2, 2))],
)
def test_slices_that_are_no_split_stay(begins, sizes):
    chain = Chain(2, 6, 5)
    graph = chain.graph(*[chain.slice(0, (0, b, 0), (2, n, 5)) for b, n in zip(begins, sizes, strict=True)])
    assert one_split.apply(graph).nodes == graph.nodes


def test_slices_along_two_axes_stay():
    chain = Chain(3, 3, 5)
    parts = [chain.slice(0, (b, 0, 0), (1, 3, 5)) for b in range(3)]
    graph = chain.graph(*parts, chain.slice(0, (0, 0, 0), (3, 1, 5)))
    assert one_split.apply(graph).nodes == graph.nodes


def test_ones_in_front_of_a_shape_are_no_op():
    chain = Chain(4, 5)
    row = chain.reshape(chain.add("MEAN", 0, chain.constant((0,)), keep_dims=True), 1, 1, 5)
    whole = chain.reshape(0, 2, 2, 5)
    graph = chain.graph(chain.add("MUL", whole, row))
    found = broadcast_ranks.apply(graph)
    assert ops(found) == ["MEAN", "RESHAPE", "MUL"]
    assert_equal(graph, found)


@pytest.mark.parametrize("reader", ["alone", "layer", "output"])
def test_ones_that_somebody_needs_stay(reader):
    chain = Chain(1, 5)
    row = chain.reshape(0, 1, 1, 5)
    if reader == "layer":
        out = chain.add("FULLY_CONNECTED", row, chain.values(3, 5), keep_num_dims=True)
    else:  # the result's rank comes from the ones, or they are read outside
        out = chain.add("MUL", row, row if reader == "alone" else chain.values(2, 2, 5))
    graph = chain.graph(out, *([row] if reader == "output" else []))
    assert broadcast_ranks.apply(graph).nodes == graph.nodes


def merged_heads(parts=3, heads=2, order=(2, 0, 1, 3)):
    """One layer -> [4, 9, parts * heads, 5] -> its axes turned -> parts."""
    chain = Chain(4, 9, 1, 7)
    width = parts * heads * 5
    t = chain.add("FULLY_CONNECTED", 0, chain.values(width, 7), chain.values(width), keep_num_dims=True)
    t = chain.transpose(chain.reshape(t, 4, 9, parts * heads, 5), *order)
    axis = chain.constant(order.index(2))
    return chain.graph(*chain.add("SPLIT", axis, t, num_splits=parts))


@pytest.mark.parametrize(
    ("parts", "order"), [(3, (2, 0, 1, 3)), (3, (0, 2, 1, 3)), (2, (0, 1, 2, 3)), (4, (3, 1, 0, 2))]
)
def test_query_key_and_value_become_layers_of_their_own(parts, order):
    graph = merged_heads(parts, order=order)
    found = own_layers.apply(graph)
    assert ops(found) == ["FULLY_CONNECTED", "RESHAPE", "TRANSPOSE"] * parts
    assert_equal(graph, found)


def test_halves_of_a_convolution_become_convolutions():
    chain = Chain(1, 4, 4, 3)
    t = chain.add("CONV_2D", 0, chain.values(8, 3, 3, 3), chain.values(8))
    graph = chain.graph(*chain.add("SPLIT", chain.constant(-1), t, num_splits=2))
    found = own_layers.apply(graph)
    assert ops(found) == ["CONV_2D", "CONV_2D"]
    assert_equal(graph, found)


@pytest.mark.parametrize("case", ["another reader", "another axis", "within heads", "activation"])
def test_layers_that_are_not_divided_by_channels_stay(case):
    chain = Chain(4, 6, 7)
    fused = {"fused_activation_function": "RELU"} if case == "activation" else {}
    layer = chain.add("FULLY_CONNECTED", 0, chain.values(12, 7), chain.values(12), keep_num_dims=True, **fused)
    t = chain.reshape(layer, 4, 6, 3, 4)
    axis = {"another axis": 1, "within heads": 3}.get(case, 2)
    parts = chain.add("SPLIT", chain.constant(axis), t, num_splits=2 if axis == 3 else 3)
    graph = chain.graph(*parts, *([layer] if case == "another reader" else []))
    assert own_layers.apply(graph).nodes == graph.nodes


def test_a_convolution_over_whole_rows_is_a_linear():
    chain = Chain(4, 9, 2, 5)
    t = chain.add("CONV_2D", 0, chain.values(6, 1, 2, 5), chain.values(6), padding="VALID")
    graph = chain.graph(t)
    found = row_layers.apply(graph)
    assert ops(found) == ["RESHAPE", "FULLY_CONNECTED"]
    assert_equal(graph, found)


@pytest.mark.parametrize(("kernel", "padding"), [((1, 2), "SAME"), ((3, 2), "VALID"), ((1, 1), "VALID")])
def test_a_convolution_that_looks_around_stays(kernel, padding):
    chain = Chain(4, 9, 2, 5)
    graph = chain.graph(chain.add("CONV_2D", 0, chain.values(6, *kernel, 5), chain.values(6), padding=padding))
    assert row_layers.apply(graph).nodes == graph.nodes


@pytest.mark.parametrize(("rows", "last"), [(1, "RESHAPE"), (3, "TRANSPOSE")])
def test_a_product_with_a_constant_on_the_left_is_a_layer(rows, last):
    chain = Chain(4, 9, 5)
    graph = chain.graph(chain.add("BATCH_MATMUL", chain.values(rows, 5), 0, adj_y=True))
    found = constant_product.apply(graph)
    assert ops(found) == ["FULLY_CONNECTED", last]
    assert_equal(graph, found)


def test_a_linear_with_computed_weights_and_a_bias_is_a_product_and_a_sum():
    chain = Chain(4, 9, 5)
    row = chain.reshape(0, 1, 180)
    bias = chain.values(1)
    out = chain.add("FULLY_CONNECTED", row, row, bias)
    graph = chain.graph(out)
    found = matrix_product.apply(graph)
    found.check()
    assert ops(found) == ["RESHAPE", "BATCH_MATMUL", "ADD"]
    x = torch.randn(2, 4, 9, 5, generator=torch.Generator().manual_seed(0))
    expected = (x**2).sum(dim=(1, 2, 3)) + float(graph.constant(bias)[0])
    assert torch.allclose(Executor(found).run(x)[out].flatten(), expected)
    assert flat_layers.apply(graph).nodes == graph.nodes  # both operands are rows


def norm(eps):
    chain = Chain(4, 5)
    mean = chain.add("MEAN", chain.add("MUL", 0, 0), chain.constant((1,)), keep_dims=True)
    if eps:
        mean = chain.add("ADD", mean, chain.constant(np.full((4, 1), eps)))
    return chain.graph(chain.add("MUL", 0, chain.add("RSQRT", mean)))


def test_a_token_of_zeros_stays_a_number():
    graph = norm(eps=0.0)
    found = guarded_roots.apply(graph)
    assert ops(found) == ["MUL", "MEAN", "ADD", "RSQRT", "MUL"]
    assert_equal(graph, found)
    assert guarded_roots.apply(found).nodes == found.nodes
    assert ops(prepared(graph, CPU)) == ops(found)
    assert "ADD" not in ops(prepared(graph, INTEGER))  # the int8 kernel gives its highest code


def test_the_file_of_a_token_of_zeros_gives_numbers():
    from ai_edge_litert.interpreter import Interpreter

    from qhyvit.tflite.serialize import serialize

    def run(graph):
        interpreter = Interpreter(model_content=serialize(graph), num_threads=1)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.zeros((1, 4, 5), np.float32))
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    assert np.isnan(run(norm(eps=0.0))).all()
    assert not run(guarded_roots.apply(norm(eps=0.0))).any()


def test_a_norm_with_an_eps_stays():
    graph = norm(eps=1e-5)
    assert guarded_roots.apply(graph).nodes == graph.nodes


def test_a_reshape_in_front_of_a_reshape_goes():
    chain = Chain(4, 6)
    first = chain.reshape(0, 2, 12)
    graph = chain.graph(chain.reshape(first, 24), chain.reshape(first, 8, 3))
    found = one_reshape.apply(graph)
    assert [n.inputs[0] for n in found.nodes[1:]] == [0, 0]
    assert_equal(graph, found)
    other = chain.graph(chain.reshape(first, 24), first)
    assert one_reshape.apply(other).nodes == other.nodes


def test_what_makes_an_export_short_stays_out_of_calibration():
    graph = unfolded_and_folded()
    short = shortened(graph)
    assert "SPACE_TO_BATCH_ND" in ops(short)
    assert ops(prepared(short)) == ops(graph) == ops(prepared(graph))
