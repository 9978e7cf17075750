"""Which weights get four bits, their codes, and what the settings may say of it."""


import numpy as np
import pytest
import torch

from qhyvit import affine
from qhyvit.config import BuildConfig, MethodConfig, TargetConfig, bits_of, bytes_of, check_bits
from qhyvit.errors import UsageError
from qhyvit.graph.ir import INT4, Graph
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.methods import method
from qhyvit.methods.shared.int4_layers import SHARE, Price, within
from qhyvit.methods.shared.int4_rounding import round_to_int4
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.reconstruct import Gram
from qhyvit.plan import QuantPlan
from qhyvit.sweep import gather
from qhyvit.sweep.spec import read_spec
from qhyvit.tasks import task
from qhyvit.verify.census import census
from qhyvit.verify.report import verify
from tests._layer_graphs import Maker

QUICK = {"rounds": 1, "learn": 0, "int16_ms": 0}


def data_and_gram(samples: int, columns: int) -> tuple[torch.Tensor, Gram]:
    """Inputs [samples, K] that are correlated, without a mean, and their sums."""
    random = torch.Generator().manual_seed(columns)
    mix = torch.randn(columns, columns, generator=random, dtype=torch.float64)
    x = torch.randn(samples, columns, generator=random, dtype=torch.float64) @ mix
    x -= x.mean(0)
    zeros = torch.zeros(1, 1, columns, dtype=torch.float64)
    return x, Gram((x.T @ x)[None], zeros, x.sum(0)[None], zeros[:, :, 0], samples, float(samples))


def test_codes_leave_less_error_at_the_output_than_those_of_the_nearest():
    x, gram = data_and_gram(50_000, 24)
    w = torch.randn(1, 16, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = round_to_int4(w, gram)
    assert torch.equal(found.codes, found.codes.round())
    assert float(found.codes.abs().max()) <= 7
    assert torch.equal(found.scale, found.scale.float().double())
    error = ((x @ (w - found.codes * found.scale)[0].T) ** 2).mean(0)
    torch.testing.assert_close(found.error[0], error, rtol=0.1, atol=1e-9)  # of samples enough, nothing is shrunk
    nearest = []
    for share in np.linspace(0.4, 1, 25):
        scale = w.abs().amax(2, keepdim=True) * share / 7
        nearest.append(((x @ (w - (w / scale).round().clamp(-7, 7) * scale)[0].T) ** 2).mean(0))
    assert float(error.sum()) < 0.5 * float(torch.stack(nearest).amin(0).sum())


def test_a_few_samples_do_not_hide_errors_that_others_would_show():
    """Sixteen samples of 64 columns: what these do not show must not take any error."""
    x, _ = data_and_gram(4096, 64)
    few, zeros = x[:16] - x[:16].mean(0), torch.zeros(1, 1, 64, dtype=torch.float64)
    w = torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = round_to_int4(w, Gram((few.T @ few)[None], zeros, few.sum(0)[None], zeros[:, :, 0], 16, 16.0))
    scale = w.abs().amax(2, keepdim=True) / 7
    left, plain = w - found.codes * found.scale, w - (w / scale).round() * scale
    errors = [float(((x @ rest[0].T) ** 2).mean()) for rest in (left, plain)]
    assert errors[0] < 1.1 * errors[1]


def test_the_dearest_layers_stay_int8_as_long_as_the_file_may_grow():
    rows = [Price("a", 8.0, 4000), Price("b", 3.0, 1000), Price("c", 1.0, 10_000), Price("d", 5.0, 3000)]
    assert within(rows, 10**6, 10**6) == ["a", "b", "c", "d"]
    assert within(rows, 10**6, 10**6 + 4600) == ["a", "c"]  # b by 3 for 1000, then a, which is too large, then d
    assert within(rows, 10**6, 10**6 + 20_000) == []
    with pytest.raises(UsageError, match=r"--size 0\.9MB is too small: .* 1\.00 MB"):
        within(rows, 10**6, 900_000)


@pytest.mark.parametrize(("given", "meant"), [
    ("w4a8", "w4a8"), (" W4A8", "w4a8"), ("6", 6), (8, 8), (3, None), ("w4a4", None), (True, None), (6.5, None),
    ([8], None), (None, None),
])  # fmt: skip
def test_bits(given, meant):
    assert bits_of(given) == meant


@pytest.mark.parametrize(("given", "meant"), [
    ("2.1MB", 2_100_000), ("900kB", 900_000), ("1500 B", 1500), (2000, 2000), ("2000", 2000), ("0MB", None),
    ("-1MB", None), ("2.1GB", None), ("MB", None), ([1], 1), (True, None), ("nanMB", None),
])  # fmt: skip
def test_sizes(given, meant):
    assert bytes_of(given) == meant


def test_settings_of_four_bits_go_with_each_other():
    check_bits(MethodConfig(bits="w4a8", size="2.1MB"), TargetConfig(integer=False))
    for name in ("tflm", "ethos-u65-256", "litert-2.14"):
        with pytest.raises(UsageError, match=f"--bits w4a8 cannot run on the target {name}"):
            check_bits(MethodConfig(bits="w4a8"), TargetConfig(name))
    with pytest.raises(UsageError, match="--bits w4a8 needs --method qhyvit: minmax has"):
        check_bits(MethodConfig("minmax", bits="w4a8"), TargetConfig())
    with pytest.raises(UsageError, match="--size needs --bits w4a8"):
        check_bits(MethodConfig(size=10**6), TargetConfig())
    given = {"model": "mobilevit_xxs", "images": "x", "bits": "w4a8", "size": "2.1MB"}
    built = BuildConfig.from_cli(given)
    assert (built.method.bits, built.method.size) == ("w4a8", 2_100_000)
    assert 'bits = "w4a8"\nsize = 2100000' in built.to_toml()


@pytest.fixture(scope="module")
def four(small_v1, inputs):
    def made(**settings):
        chosen = method("qhyvit")
        found = chosen.search(Problem(small_v1.graph, inputs[:4], **settings), {**chosen.defaults, **QUICK})
        plan = QuantPlan(found.tensors, "qhyvit")
        return found.shipped, plan, quantized_file(found.shipped, plan)

    return made


def test_a_network_without_such_layers_is_refused():
    make = Maker()
    make.conv(make.conv(make.image, 7, 3), 5)
    graph = Graph(make.tensors, tuple(make.nodes), (make.image,), make.nodes[-1].outputs)
    images = torch.randn(4, *graph.tensors[graph.inputs[0]].shape[1:], generator=torch.Generator().manual_seed(0))
    problem = Problem(graph, images, task=task("raw"), int4=True)
    with pytest.raises(UsageError, match="no layer of this network can have weights of four bits"):
        method("qhyvit").search(problem, {**method("qhyvit").defaults, **QUICK})


def test_a_size_below_all_weights_is_refused_before_any_search(small_v1, inputs):
    def told(*what):
        pytest.fail(f"{what} before the size was looked at")

    problem = Problem(small_v1.graph, inputs[:4], int4=True, size=500_000, progress=told)
    with pytest.raises(UsageError, match=r"--size 0\.5MB is too small: with all weights .* alone are 0\.[56]\d MB"):
        method("qhyvit").search(problem, {**method("qhyvit").defaults, **QUICK})


def test_a_size_between_the_weights_and_the_file_is_refused():
    with pytest.raises(UsageError, match=r"--size 0\.6MB is too small: with all weights .* the file has 0\.70 MB"):
        within([Price("a", 1.0, 1000)], 700_000, 600_000)


def proven(four, inputs, **settings):
    """Bytes of a file that computes, op by op, what is simulated."""
    graph, plan, data = four(**settings)
    typed = lower(graph, plan)
    four_bit = [t for t in typed.graph.tensors.values() if t.dtype == INT4]
    assert bool(four_bit) == settings.get("int4", False)
    assert "FULLY_CONNECTED" not in census(data).not_delegated
    q = plan.tensors[graph.tensors[graph.inputs[0]].name]
    codes = [affine.quantize(x[None].numpy(), q.scale[0], q.zero_point[0], affine.grid()).astype(np.int8)
             for x in inputs[4:6]]  # fmt: skip
    report = verify(graph, typed, data, inputs[4:6], codes)
    assert [c.name for c in report.checks if "decide" not in c.name and not c.passed] == []
    assert {o.op: o.worst for o in report.agreements["litert"].ops.values() if o.worst} == {}
    return len(data)


def test_a_file_with_four_bits_computes_what_is_simulated(four, inputs):
    assert 0.97e6 < proven(four, inputs, int4=True, size=1_000_000) <= 1e6


@pytest.mark.slow
def test_a_file_without_a_size_has_the_share_that_is_asked_for(four, inputs):
    whole, smallest = proven(four, inputs), proven(four, inputs, int4=True)
    assert smallest < 0.7 * whole
    assert smallest >= SHARE * whole - 2**16 * 0.5  # no smaller than asked for, but for a layer


def test_sweeps_take_the_same_bits(tmp_path):
    text = """models = [{ name = "mobilevit_xxs", random_weights = true }]
methods = ["qhyvit"]
bits = [8, "w4a8"]
[calibration]
images = "a"
[evaluation]
images = "b"
"""
    (tmp_path / "s.toml").write_text(text)
    spec = read_spec(tmp_path / "s.toml")
    assert [build.method.bits for _, build in spec.builds(spec.models[0])] == [8, "w4a8"]
    (tmp_path / "s.toml").write_text(text.replace("qhyvit", "minmax"))
    with pytest.raises(UsageError, match="minmax has no weights of four bits"):
        read_spec(tmp_path / "s.toml")
    rows = [{"method": "qhyvit", "bits": bits} for bits in (8, "w4a8")]
    more = {"profile": "cpu", "target": "litert"}
    assert [gather._label(row | more, ["bits"]) for row in rows] == ["qhyvit, 8 bits", "qhyvit, w4a8"]
