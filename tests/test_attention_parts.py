"""Attention in parts: the same values, one scale more for each part, and only where it pays."""

from dataclasses import replace

import numpy as np
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency.profile import Sizes, default_profile
from qhyvit.lowering.contracts import groups
from qhyvit.ops import spec
from qhyvit.passes import attention_parts, prepared
from qhyvit.sim.run import Executor
from tests._targets import BY_PROFILE

TOKENS, DEPTH = 6, 3


def node(op, inputs, out, **attrs):
    return Node(op, spec(op).attrs(**attrs), inputs, (out,))


def attention(batch, *, outputs=(10,), extra=()):
    """x [1, 3 * batch, 6, 3] -> query, key and value [batch, 6, 3] -> softmax(q k^T) v, and ``extra`` nodes."""
    whole, third, square = (3 * batch, TOKENS, DEPTH), (batch, TOKENS, DEPTH), (batch, TOKENS, TOKENS)
    constants = {1: np.array(whole, np.int32), 3: np.array(0, np.int32), 11: np.array([0, 2, 1], np.int32)}
    shapes = {0: (1, *whole), 2: whole, 4: third, 5: third, 6: third, 7: square, 8: square, 9: (batch, DEPTH, TOKENS),
              10: third, 12: square}  # fmt: skip
    tensors = {t: Tensor(t, f"t{t}", c.shape, "INT32", c) for t, c in constants.items()}
    tensors |= {t: Tensor(t, f"t{t}", shape, "FLOAT32") for t, shape in shapes.items()}
    nodes = (
        node("RESHAPE", (0, 1), 2),
        Node("SPLIT", spec("SPLIT").attrs(num_splits=3), (3, 2), (4, 5, 6)),
        node("BATCH_MATMUL", (4, 5), 7, adj_y=True), node("SOFTMAX", (7,), 8, beta=1.0),
        node("TRANSPOSE", (6, 11), 9), node("BATCH_MATMUL", (8, 9), 10, adj_y=True), *extra,
    )  # fmt: skip
    used = {t for n in nodes for t in (*n.inputs, *n.outputs)}
    graph = Graph({t: v for t, v in tensors.items() if t in used}, nodes, (0,), outputs)
    graph.check()
    return graph


FEW = Sizes(cached=8 * TOKENS * TOKENS)


def test_the_values_are_those_of_one_attention():
    found = attention_parts.apply(attention(8), FEW)
    found.check()
    assert [n.op for n in found.nodes].count("SOFTMAX") == attention_parts.PARTS
    x = torch.randn(2, 24, TOKENS, DEPTH, generator=torch.Generator().manual_seed(0))
    query, key, value = x.split(8, dim=1)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    assert torch.allclose(Executor(found).run(x)[10], expected, atol=1e-5)


def test_each_part_has_scores_of_its_own_scale():
    found = attention_parts.apply(attention(8), FEW)
    scores = [n.inputs[0] for n in found.nodes if n.op == "SOFTMAX"]
    assert len({g for g, group in enumerate(groups(found)) for t in scores if t in group.members}) == len(scores)


def test_what_is_small_indivisible_or_read_elsewhere_stays():
    again = node("ADD", (8, 8), 12)
    kept = attention(4), attention(10), attention(8, extra=(again,), outputs=(10, 12)), attention(8, outputs=(10, 8))
    for graph in kept:
        assert attention_parts.apply(graph, FEW).nodes == graph.nodes


def test_only_the_profile_with_float_softmaxes_takes_it():
    few = replace(default_profile(), sizes=FEW)
    made = {p: prepared(attention(8), replace(target, times=few)).nodes for p, target in BY_PROFILE.items()}
    count = {p: [n.op for n in nodes].count("SOFTMAX") for p, nodes in made.items()}
    assert count == {"integer": 1, "cpu": attention_parts.PARTS}
