"""GELU as SiLU in the integer profile."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.lowering.lower import lower
from qhyvit.lowering.profiles import with_islands
from qhyvit.methods import method
from qhyvit.methods.shared import gelu
from qhyvit.methods.shared.problem import Problem
from qhyvit.ops import spec
from qhyvit.plan import QuantPlan
from qhyvit.sim.run import GATE_SLOPE, Executor
from qhyvit.tasks import task
from qhyvit.tflite.serialize import serialize
from qhyvit.verify.agree import op_by_op
from qhyvit.verify.census import census
from qhyvit.verify.decide import HERE
from tests._codes import input_codes

SIZE = (1, 16, 16, 32)
RNG = np.random.default_rng(0)
ARRAYS = {
    "w1": RNG.normal(size=(32, 1, 1, 32), scale=0.4).astype(np.float32), "b1": RNG.normal(size=32).astype(np.float32),
    "w2": RNG.normal(size=(1, 3, 3, 32), scale=0.3).astype(np.float32), "b2": RNG.normal(size=32).astype(np.float32),
    "pads": np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32),
}  # fmt: skip


def silus(problem, distance):
    return gelu.again(problem, gelu.as_silus(problem, distance))


def feed_forward(*more, outputs=("y",)):
    """x -> 1x1 convolution -> GELU -> PAD -> depthwise convolution; ``more`` nodes as (op, inputs, output)."""
    shapes = {"x": SIZE, "h": SIZE, "g": SIZE, "p": (1, 18, 18, 32), "y": SIZE, "z": SIZE}
    names = [*shapes, *ARRAYS]
    tensors = [
        *[Tensor(i, name, shape, "FLOAT32") for i, (name, shape) in enumerate(shapes.items())],
        *[Tensor(6 + i, n, v.shape, v.dtype.name.upper(), v) for i, (n, v) in enumerate(ARRAYS.items())],
    ]
    attrs = {"CONV_2D": {"padding": "VALID"}, "DEPTHWISE_CONV_2D": {"padding": "VALID", "depth_multiplier": 1}}
    wired = [
        ("CONV_2D", ("x", "w1", "b1"), "h"), ("GELU", ("h",), "g"), ("PAD", ("g", "pads"), "p"),
        ("DEPTHWISE_CONV_2D", ("p", "w2", "b2"), "y"), *more,
    ]  # fmt: skip
    nodes = tuple(
        Node(op, spec(op).attrs(**attrs.get(op, {})), tuple(map(names.index, inputs)), (names.index(out),))
        for op, inputs, out in wired
    )
    used = {t for n in nodes for t in (*n.inputs, *n.outputs)}
    graph = Graph({t.id: t for t in tensors if t.id in used}, nodes, (0,), tuple(map(names.index, outputs)))
    graph.check()
    return graph


def images(count=4):
    return torch.randn(count, *SIZE[1:], generator=torch.Generator().manual_seed(0))


ANY = 1e9  # so far away that every approximation is worth its time


def test_the_two_differ_by_a_fiftieth_at_most():
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    error = F.gelu(x) - x * torch.sigmoid(GATE_SLOPE * x)
    assert 0.02 < float(error.abs().max()) < 0.0204


def test_layers_take_the_slope_on_and_out_again():
    graph = feed_forward()
    made = silus(Problem(graph, images()), ANY).graph
    assert [n.op for n in made.nodes] == ["CONV_2D", "LOGISTIC", "MUL", "PAD", "DEPTHWISE_CONV_2D"]
    found = Executor(made, torch.float64).run(images(), None, [1, 2, 4])
    exact = Executor(graph, torch.float64).run(images(), None, [1, 2, 4])
    h = exact[1]
    assert torch.allclose(found[1], GATE_SLOPE * h, atol=1e-5)
    assert torch.allclose(found[2] / GATE_SLOPE, h * torch.sigmoid(GATE_SLOPE * h), atol=1e-5)
    assert float((found[2] / GATE_SLOPE - exact[2]).abs().max()) < 0.0204
    taps = float(np.abs(ARRAYS["w2"]).sum(axis=(0, 1, 2)).max())
    assert float((found[4] - exact[4]).abs().max()) < 0.0204 * taps


@pytest.mark.parametrize(
    "graph",
    [
        feed_forward(("ADD", ("y", "g"), "z"), outputs=("z",)),  # the result is read elsewhere
        feed_forward(("ADD", ("y", "h"), "z"), outputs=("z",)),  # so is what it is made of
        feed_forward(outputs=("y", "g")),
        with_islands(feed_forward(), "cpu", frozenset([2])),
    ],
    ids=["output", "input", "graph output", "float"],
)
def test_others_stay(graph):
    assert gelu.candidates(graph) == []


def test_the_outputs_decide():
    """The more quantization costs anyway, the more an approximation may; the log says how much it does."""
    said = []
    problem = Problem(feed_forward(), images(), task=task("raw"), log=said.append)
    assert silus(problem, 1e-12).graph is problem.graph
    assert said == []
    made = silus(problem, ANY)
    (gate,) = made.graph.gates
    assert made.graph.producer(gate).op == "LOGISTIC"
    assert len(said) == 1


def test_the_unedited_network_is_never_lost():
    graph = feed_forward()
    made = silus(Problem(graph, images()), ANY).graph
    plain, exact = (Executor(made, torch.float64, exact=e).rows(images()) for e in (False, True))
    expected = Executor(graph, torch.float64).rows(images())
    assert float((exact - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    assert float((plain - expected).abs().max()) > 1e-3 * float(expected.abs().max())


def test_weights_that_two_layers_share_are_scaled_for_one():
    graph = feed_forward(("CONV_2D", ("y", "w1", "b1"), "z"), outputs=("z",))
    made = silus(Problem(graph, images()), ANY).graph
    first, last = (n for n in made.nodes if n.op == "CONV_2D")
    assert np.allclose(made.constant(first.inputs[1]), GATE_SLOPE * ARRAYS["w1"])
    assert np.array_equal(made.constant(last.inputs[1]), ARRAYS["w1"])


def test_xnnpack_takes_the_file_and_the_simulation_knows_every_code():
    chosen, problem = method("qhyvit"), Problem(feed_forward(), images())
    options = {**chosen.defaults, "rounds": 2, "learn": 0, "folds": "none", "ridge": 0.0, "rounding": False}
    solution = chosen.search(problem, options)
    lowered = lower(solution.shipped, QuantPlan(solution.tensors, "qhyvit"))
    data = serialize(lowered.graph)
    found = census(data)
    assert "LOGISTIC" in {op for op, _ in found.ops}
    assert not found.not_delegated
    assert found.float_tensors == ()
    codes = input_codes(solution, problem.images)
    checked = op_by_op(solution.graph, lowered, data, problem.images, codes, HERE)
    assert not checked.missing
    assert max(o.worst for o in checked.ops.values()) == 0


def test_an_option_keeps_the_kernel():
    chosen = method("qhyvit")
    options = {**chosen.defaults, "rounds": 1, "learn": 0, "folds": "none", "ridge": 0.0, "rounding": False}
    solution = chosen.search(Problem(feed_forward(), images()), {**options, "fast_gelu": False})
    assert "GELU" in {n.op for n in solution.shipped.nodes}
