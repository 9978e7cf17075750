"""PReLU and leaky ReLU, as an op or in the converter's form, become what int8 kernels compute right."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qhyvit.folds.shared.scaling import CannotScaleError, scale_tensor
from qhyvit.passes import all_passes, prepared
from qhyvit.sim.run import Executor
from tests._layer_graphs import Maker

IMAGES = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(0))
SLOPES = {
    "channel": [0.1, -0.3, 0.5, 1.0, 0.0, 0.25, 0.9, -1.5], "one": [0.25], "steep": [0.1, 1.4, 0.5, 0, 0, 0, 0, 2.0],
}  # fmt: skip


def alpha_of(name: str) -> np.ndarray:
    values = np.array(SLOPES[name], np.float32)
    return values.reshape(1, 1, -1) if len(values) > 1 else values


def converted(m: Maker, x: int, alpha: np.ndarray, turned: bool = False) -> int:
    """relu(x) - alpha * relu(-x), as litert-torch writes nn.PReLU."""
    minus = m.add("minus", (), np.array(-1, np.float32))
    below = m.op("MUL", *((minus, x) if turned else (x, minus)), fused_activation_function="RELU")
    slope = m.add("alpha", alpha.shape, alpha)
    scaled = m.op("MUL", *((slope, below) if turned else (below, slope)))
    return m.op("SUB", m.op("RELU", x), scaled)


def negated(m: Maker, x: int, alpha: np.ndarray) -> int:
    slope = m.add("alpha", alpha.shape, alpha)
    return m.op("SUB", m.op("RELU", x), m.op("MUL", m.op("RELU", m.op("NEG", x)), slope))


FORMS = {
    "op": lambda m, x, a: m.op("PRELU", x, m.add("alpha", a.shape, a)),
    "converted": converted,
    "turned": lambda m, x, a: converted(m, x, a, turned=True),
    "negated": negated,
    "leaky": lambda m, x, a: m.op("LEAKY_RELU", x, alpha=float(a.ravel()[0])),
}


@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_becomes_a_sum_or_a_prelu(form: str, slopes: str) -> None:
    alpha = alpha_of(slopes)
    maker = Maker(1)
    x = maker.conv(maker.image, 8, 3)
    y = FORMS[form](maker, x, alpha)
    graph = maker.logits(y)
    found = prepared(graph)
    a = torch.from_numpy(alpha.ravel()[:1] if form == "leaky" else alpha.ravel()).double()
    seen = Executor(graph, torch.float64).run(IMAGES, None, [x])[x]
    kept = Executor(found, torch.float64).run(IMAGES, None, [y])
    expected = F.prelu(seen.movedim(-1, 1), a).movedim(1, -1)
    assert torch.allclose(kept[y], expected, atol=1e-6)
    assert torch.allclose(kept[found.outputs[0]].flatten(1), Executor(graph, torch.float64).rows(IMAGES), atol=1e-6)
    counts = Counter(n.op for n in found.nodes)
    steep = slopes == "steep" and form != "leaky"
    assert counts == Counter(CONV_2D=1, MEAN=1, FULLY_CONNECTED=1) + (
        Counter(PRELU=1) if steep else Counter(MUL=1, ADD=1)
    )


@pytest.mark.parametrize("what", ["two_sources", "other_factor", "fused", "wide"])
def test_what_only_looks_like_it_stays(what: str) -> None:
    maker = Maker(2)
    x, other = maker.conv(maker.image, 8, 3), maker.conv(maker.image, 8, 3)
    minus = maker.add("minus", (), np.array(-2 if what == "other_factor" else -1, np.float32))
    alpha = maker.draw(3, 1, 1, 8) if what == "wide" else maker.draw(1, 1, 8)
    below = maker.op("MUL", other if what == "two_sources" else x, minus, fused_activation_function="RELU")
    fused = {"fused_activation_function": "RELU"} if what == "fused" else {}
    graph = maker.logits(maker.op("SUB", maker.op("RELU", x), maker.op("MUL", below, alpha, **fused)))
    assert all_passes()["rectifiers"].apply(graph) is graph


def test_a_channel_scale_passes_both_forms() -> None:
    maker = Maker(3)
    x = maker.conv(maker.image, 8, 3)
    graph = maker.logits(FORMS["op"](maker, x, alpha_of("channel")))
    for before in (graph, prepared(graph)):
        folded = scale_tensor(before, x, 2.0 ** np.arange(-3, 5))
        found, expected = (Executor(g, torch.float64).rows(IMAGES) for g in (folded, before))
        assert torch.allclose(found, expected, rtol=1e-12)


def test_a_scale_does_not_pass_a_slope_that_is_computed() -> None:
    maker = Maker(4)
    x, alpha = maker.conv(maker.image, 8, 3), maker.conv(maker.image, 8, 3)
    graph = maker.logits(maker.op("PRELU", x, alpha))
    assert prepared(graph).nodes[-3].op == "PRELU"
    with pytest.raises(CannotScaleError, match="scaled alpha"):
        scale_tensor(graph, alpha, np.full(8, 2.0))
