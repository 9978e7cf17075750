"""Every op against the LiteRT interpreter in float: values, shapes, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from _cases import CASES
from _single_op import Activation, Case, build, interpreter, run
from ai_edge_litert.interpreter import OpResolverType

from qhyvit.sim.run import Executor
from qhyvit.tflite.read import read

BATCH = 3
ALL = pytest.mark.parametrize("case", CASES, ids=str)


@ALL
def test_values_and_shapes_are_those_of_the_interpreter(case: Case) -> None:
    images = case.images(BATCH)
    honest = case.op == "SLICE"  # its kernel compares the declared shape with its own and fails if they differ
    expected = run(interpreter(build(case, honest=honest), OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES), images)
    found = case.forward(images)
    assert len(found) == len(expected)
    for y, reference, shape in zip(found, expected, case.inferred(), strict=True):
        assert shape == reference.shape[1:]
        assert tuple(y.shape) == reference.shape
        np.testing.assert_allclose(y.numpy(), reference, rtol=0, atol=1e-5 * np.abs(reference).max())


@ALL
def test_gradients_are_those_of_finite_differences(case: Case) -> None:
    operands = []
    for i, (x, operand) in enumerate(zip(case.images(2), case.operands, strict=True)):
        values = operand if x is None else x
        if values is None or values.dtype != np.float32 or not np.isfinite(values).all():
            operands.append(None)
            continue
        tensor = torch.tensor(values, dtype=torch.float64)
        constant = x is None and i not in (case.spec.weight_input, case.spec.bias_input)
        operands.append((tensor.unsqueeze(0) if constant else tensor).requires_grad_())
    variables = [t for t in operands if t is not None]

    def function(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest = iter(values)
        return case.forward([None if t is None else next(rest) for t in operands], torch.float64)

    assert all(y.dtype == torch.float64 for y in function(*variables))
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(function, variables, fast_mode=True)


def _images_only(case: Case) -> bool:
    fed = [o for o in case.operands if isinstance(o, Activation)]
    return len(fed) == 1 and fed[0].shape[0] == 1


@pytest.mark.parametrize("case", [c for c in CASES if _images_only(c)], ids=str)
def test_the_executor_hands_over_operands_as_the_op_expects(case: Case) -> None:
    graph, images = read(build(case)), case.images(BATCH)
    (feed,) = [x for x in images if x is not None]  # [B, 1, ..]
    values = Executor(graph).run(torch.tensor(feed[:, 0]))
    for t, expected in zip(graph.outputs, case.forward(images), strict=True):
        assert torch.equal(values[t], expected)
