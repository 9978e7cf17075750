"""The cost model: fitted to known times, and the files that it lies in."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qhyvit.cli import main
from qhyvit.errors import InputError
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency import KernelTime, KernelWork, LatencyProfile, default_profile
from qhyvit.latency import fit as fitting
from qhyvit.latency.profile import packaged
from qhyvit.latency.work import TABLE, work
from qhyvit.lowering.lower import quantized_file
from qhyvit.lowering.profiles import with_islands
from qhyvit.ops import all_ops, spec
from qhyvit.plan import QuantPlan

BOARD = {
    "board": {"board": "Pi", "processor": "A72", "features": []}, "settings": {"threads": 1}, "warnings": [],
}  # fmt: skip


# --- fitting ---


def measured(fixed_us, ns_per_element, ns_per_mac, noise=0.0):
    rng = np.random.default_rng(1)
    found = []
    for elements, macs in rng.integers(100, 200_000, (40, 2)):
        us = fixed_us + (ns_per_element * elements + ns_per_mac * macs) / 1e3
        found.append(
            fitting.Sample(KernelWork("K int8", int(elements), int(macs)), us * (1 + noise * rng.random()), False)
        )
    return found


def test_a_linear_model_is_found_again_whatever_outliers_say():
    own = measured(3.0, 0.25, 0.02)
    own += [replace(s, us=50 * s.us) for s in own[:6]]  # a sixth of the runs was disturbed
    found = fitting.fit_kernel(own)
    assert (found.fixed_us, found.ns_per_element, found.ns_per_mac) == pytest.approx((3.0, 0.25, 0.02), rel=1e-3)
    assert found.samples == 46
    assert found.error == 0.0


def test_no_coefficient_is_negative():
    own = [fitting.Sample(KernelWork("K int8", n), max(0.2 * n - 30, 0.1), False) for n in range(200, 2000, 100)]
    found = fitting.fit_kernel(own)
    assert found.fixed_us == 0
    assert found.ns_per_element > 0


def test_one_size_grows_with_the_elements():
    found = fitting.fit_kernel([fitting.Sample(KernelWork("K int8", 4000), 8.0, True)])
    assert (found.fixed_us, found.ns_per_element, found.builtin) == (0, 2.0, True)
    assert found.ms(2000) == pytest.approx(0.004)


def test_only_what_may_vanish_into_a_neighbour_is_free():
    alone, vanishing = (fitting.Sample(KernelWork(k, 9), None, False) for k in ("GELU int8", "MUL/silu int8"))
    assert fitting.fit_kernel([alone]) is None
    assert fitting.fit_kernel([vanishing]).ms(9) == 0


def bench_of(nodes, tensors, events, overhead=0.0):
    rows = [{"name": n, "kernel": "builtin" if at is not None else "xnnpack", "node": at, "us": us}
            for n, at, us in events]  # fmt: skip
    model = {"graph": {"nodes": nodes, "tensors": tensors}, "events": rows, "overhead_us": overhead, "runtime": "r"}
    return {"benches": [{**BOARD, "models": [model]}]}


def siluchain():
    """x -> CONV -> LOGISTIC, MUL (one operator for both) -> GELU (builtin) -> ADD of x (ready before GELU)."""
    tensors = {str(i): ["int8", [1, 4, 4, 8]] for i in range(7)} | {"9": ["int8", [8, 1, 1, 8]]}
    nodes = [
        ["CONV_2D", [0, 9], [1]], ["LOGISTIC", [1], [2]], ["MUL", [1, 2], [3]], ["GELU", [3], [4]],
        ["ADD", [0, 0], [5]], ["SUB", [4, 5], [6]],
    ]  # fmt: skip
    events = [
        ("Fully Connected (NC, QS8, QC8W) GEMM", None, 5.0), ("Invalid Unary Op", None, 2.0), ("Add (ND)", None, 7.0),
        ("GELU", 3, 9.0), ("Subtract (ND)", None, 4.0),
    ]  # fmt: skip
    return nodes, tensors, events


def test_every_operator_finds_its_node_though_it_runs_out_of_order():
    """XNNPACK's own times lack half a microsecond, as its clock cuts off what is less than one."""
    nodes, tensors, events = siluchain()
    found = fitting.samples(bench_of(nodes, tensors, events)["benches"][0]["models"][0])
    assert [(s.work.kernel, s.us) for s in found] == [
        ("CONV_2D int8", 5.5), ("LOGISTIC int8", 2.5), ("MUL/silu int8", None), ("GELU int8", 9.0), ("ADD int8", 7.5),
        ("SUB int8", 4.5),
    ]  # fmt: skip
    assert found[0].work == KernelWork("CONV_2D int8", 128, 16 * 8 * 8)
    assert [s.builtin for s in found] == [False, False, False, True, False, False]


def test_an_elementwise_op_between_borders_is_a_table():
    tensors = {"0": ["int8", [50]], "1": ["float32", [50]], "2": ["float32", [50]], "3": ["int8", [50]]}
    nodes = [["DEQUANTIZE", [0], [1]], ["GELU", [1], [2]], ["QUANTIZE", [2], [3]]]
    for events, kernel in (
        ([("Invalid Unary Op", None, 3.0)], TABLE),
        ([("Convert (NC)", None, 1.0), ("GELU (NC)", None, 3.0), ("Convert (NC)", None, 1.0)], None),
    ):
        found = fitting.samples(bench_of(nodes, tensors, events)["benches"][0]["models"][0])
        timed = {s.work.kernel: s.us for s in found if s.us is not None}
        assert (timed.get(TABLE) == 3.5) == (kernel == TABLE)


@pytest.mark.parametrize("op", sorted(name for name, op in all_ops().items() if op.table))
def test_xnnpack_looks_codes_up_where_an_elementwise_op_is_alone(tmp_path, op):
    from qhyvit.plan import Choice, TensorQuant
    from qhyvit_device.profile import profile

    tensors = {0: Tensor(0, "x", (1, 64, 64, 8), "FLOAT32"), 1: Tensor(1, "y", (1, 64, 64, 8), "FLOAT32")}
    graph = Graph(tensors, (Node(op, spec(op).attrs(), (0,), (1,)),), (0,), (1,))
    graph = with_islands(graph, "cpu", frozenset({1}))
    grid = TensorQuant((0.02,), (-128,), choice=Choice())
    (tmp_path / "m.tflite").write_bytes(quantized_file(graph, QuantPlan({"x": grid, "y": grid}, "test")))
    found = profile(tmp_path / "m.tflite", runs=2)
    assert [(e.name, e.kernel) for e in found.events] == [("Invalid Unary Op", "xnnpack")]
    assert fitting.samples({"graph": found.graph, "events": [vars(e) for e in found.events]})[1].work.kernel == TABLE


def test_exponentials_have_times():
    """XNNPACK's own name of the operator."""
    tensors = {"0": ["float32", [50]], "1": ["float32", [50]]}
    model = bench_of([["EXP", [0], [1]]], tensors, [("Exp (NC)", None, 3.0)])["benches"][0]["models"][0]
    assert [s.us for s in fitting.samples(model)] == [3.5]


def test_missing_kernels_are_the_defaults_at_this_boards_pace(tmp_path):
    nodes, tensors, events = siluchain()
    path = tmp_path / "bench.json"
    base = LatencyProfile(
        "base", kernels={"GELU int8": KernelTime(fixed_us=3.0), "RSQRT int8": KernelTime(ns_per_element=5.0)}
    )
    path.write_text(json.dumps(bench_of(nodes, tensors, events)))
    found = fitting.fit([path], base)  # GELU took 9 us here, 3 there
    assert found.kernels["RSQRT int8"].ns_per_element == pytest.approx(15.0)
    assert found.kernels["RSQRT int8"].samples == 0
    assert found.kernels["GELU int8"].samples == 1


def test_what_a_part_costs_is_what_no_op_takes(tmp_path):
    paths = []
    for parts, inside in ((1, 3), (2, 1), (5, 4), (3, 9)):
        ops = [*["TANH"] * inside, "GELU"] * parts
        nodes = [[op, [i], [i + 1]] for i, op in enumerate(ops)]
        tensors = {str(i): ["int8", [8]] for i in range(len(ops) + 1)}
        events = [("GELU", i, 1.0) if op == "GELU" else ("Invalid Unary Op", None, 1.0) for i, op in enumerate(ops)]
        paths.append(tmp_path / f"{parts}.json")
        paths[-1].write_text(json.dumps(bench_of(nodes, tensors, events, 20 + 0.5 * len(ops) + 3 * parts)))
    found = fitting.fit(paths)
    assert found.partition_us == pytest.approx(3)
    assert found.ms(KernelWork("GELU int8", 8)) == pytest.approx(0.001 + 0.003)
    assert found.ms(KernelWork("TANH int8", 8)) == pytest.approx(0.0015)


def test_a_float_tensor_that_leaves_the_cache_costs_more():
    one = KernelTime(ns_per_element=1.0)
    plain = LatencyProfile("p", kernels={"MUL float32": one, "MUL int8": one})
    cached, slower = plain.sizes.cached, 1.0 + plain.sizes.beyond_cache_ns
    times = [plain.ms(KernelWork(name, cached)) for name in ("MUL float32", "MUL int8")]
    assert times == [pytest.approx(cached / 1e6)] * 2
    assert plain.ms(KernelWork("MUL float32", 2 * cached)) == pytest.approx(2 * cached * slower / 1e6)
    assert plain.ms(KernelWork("MUL int8", 2 * cached)) == pytest.approx(2 * cached / 1e6)


# --- kernels ---


@pytest.mark.parametrize(("left", "kernel"), [
    ((6, 784), "BATCH_MATMUL/few int8"), ((4, 15, 784), "BATCH_MATMUL/few int8"), ((4, 16, 784), "BATCH_MATMUL int8"),
])  # fmt: skip
def test_products_of_few_rows_are_a_kernel_of_their_own(left, kernel):
    right, out = (*left[:-2], 24, 784), (*left[:-1], 24)
    found = work("BATCH_MATMUL", "", [left, right], out, ("int8", "int8"))
    assert found.kernel == kernel
    assert found.macs == 784 * np.prod(out)
    assert work("BATCH_MATMUL", "squares", [left, right], out, ("int8", "int8")).kernel == "BATCH_MATMUL/squares int8"


@pytest.mark.parametrize(
    ("op", "operands", "out", "calls"),
    [
        ("MUL", ((1, 5, 7, 36), (1, 36)), (1, 5, 7, 36), 35), ("MUL", ((35, 36), (35, 1)), (35, 36), 35),
        ("ADD", ((5, 36), (5, 36)), (5, 36), 0), ("MUL", ((5, 36), ()), (5, 36), 0),
        ("SUB", ((4, 6, 8), (1, 6, 8)), (4, 6, 8), 4), ("MAXIMUM", ((4, 6, 8), (4, 1, 1)), (4, 6, 8), 4),
        ("MUL", ((3, 128), (4, 1, 128)), (4, 3, 128), 12), ("LOGISTIC", ((5, 36),), (5, 36), 0),
        ("MUL", ((1, 1, 36), (36,)), (1, 1, 36), 0),
    ],
)  # fmt: skip
def test_an_operand_that_is_repeated_takes_a_call_a_run(op, operands, out, calls):
    """Counted independently: a run goes on as long as every operand's place in memory moves on as it did before."""
    assert work(op, "", operands, out, ("int8", "int8")).macs == calls
    places = [np.broadcast_to(np.arange(math.prod(s)).reshape(s), out).ravel() for s in operands]
    steps = np.diff(np.stack(places), axis=1)
    assert max(calls, 1) == 1 + int((steps != steps[:, :1]).any(axis=0).sum())


def test_the_default_knows_products_of_few_rows():
    kernels = default_profile().kernels
    assert {"BATCH_MATMUL/few int8", "BATCH_MATMUL/few float32"} <= set(kernels)


# --- files ---


def test_a_profile_reads_back_as_it_was():
    default = default_profile()
    assert fitting.from_json(json.loads(default.to_json()), "x") == default
    assert default.kernels


GOOD = {"schema_version": 1, "name": "Pi", "threads": 1, "partition_us": 0.0,
        "kernels": {"GELU int8": {"ns_per_element": 1.0}}}  # fmt: skip


def test_processors_have_profiles_by_name(tmp_path, monkeypatch):
    """Counted instructions: without a dot product (A53, A72) a multiply-accumulate takes more, floats do not care."""
    found = {name: fitting.load(Path(name)) for name in ("cortex-a53", "cortex-a72", "cortex-a76")}
    assert set(found) == set(packaged())
    assert all("emulated" in p.name and "no times" in p.name for p in found.values())
    int8, floats = (
        [p.kernels[f"FULLY_CONNECTED {t}"].ns_per_mac / p.kernels["ADD float32"].ns_per_element for p in found.values()]
        for t in ("int8", "float32")
    )
    assert min(int8[:2]) > 2 * int8[2]
    assert max(floats) < 2 * min(floats)
    monkeypatch.chdir(tmp_path)
    own = replace(found["cortex-a72"], name="a file of that name comes first")
    Path("cortex-a72").write_text(own.to_json())
    assert fitting.load(Path("cortex-a72")) == own


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "no JSON"),
        ("[]", "neither"),
        ("{}", "no times by op"),
        (json.dumps({**GOOD, "schema_version": 2}), "schema_version is 2"),
        (json.dumps({**GOOD, "more": 1}), "unknown key 'more'"),
        (json.dumps({**GOOD, "sizes": {"lanes": -1}}), "lanes is -1, must be a whole number of 0 or more"),
        (json.dumps({**GOOD, "sizes": {"cached": 0.5}}), "cached is 0.5, must be a whole number of 0 or more"),
        (json.dumps({**GOOD, "sizes": {"lane": 1}}), "lane"),
        (json.dumps({**GOOD, "sizes": 16}), "is no latency profile"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "name"}), "'name' is missing"),
        (json.dumps({**GOOD, "threads": 0}), "threads is 0"),
        (json.dumps({**GOOD, "kernels": {"GELU int8": {"ns_per_element": -1}}}), "ns_per_element is -1"),
        (json.dumps({**GOOD, "kernels": {"GELU int8": {"ns_per_element": "x"}}}), "ns_per_element is 'x'"),
        (json.dumps({**GOOD, "kernels": {"GELU int8": {"what": 1}}}), "what"),
        (json.dumps({**GOOD, "kernels": []}), "is no latency profile"),
        (json.dumps({**GOOD, "partition_us": math.nan}), "nan"),
        (json.dumps({"benches": [{**BOARD, "models": [{"runtime": "r"}]}]}), "no times by op"),
        (json.dumps({"benches": 3}), "no bench file"),
        (json.dumps(bench_of([["ADD", [0], [7]]], {}, [("Add (ND)", None, 1.0)])), "cannot be read"),
    ],
)
def test_a_bad_file_gets_one_line(tmp_path, capsys, content, words):
    path, out = tmp_path / "p.json", tmp_path / "out.json"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        fitting.load(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)
    with pytest.raises(SystemExit) as stopped:
        main(["latency-profile", str(path), "--out", str(out)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()


def test_two_processors_make_no_profile(tmp_path):
    nodes, tensors, events = siluchain()
    one, other = bench_of(nodes, tensors, events), bench_of(nodes, tensors, events)
    other["benches"][0]["board"] = {"board": "Pi", "processor": "A76", "features": []}
    for name, content in (("a", one), ("b", other)):
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"A72.*A76"):
        fitting.fit([tmp_path / "a", tmp_path / "b"])


def test_the_command_fits_and_keeps_what_is_there(tmp_path, capsys):
    path, out = tmp_path / "b.json", tmp_path / "p.json"
    path.write_text(json.dumps(bench_of(*siluchain())))
    for code in (0, 2):  # the second time the profile is there
        with pytest.raises(SystemExit) as stopped:
            main(["latency-profile", str(path), "--out", str(out)])
        assert stopped.value.code == code
        shown = capsys.readouterr()
        assert ("GELU" in shown.out) == (code == 0)
        assert "SOFTMAX" not in shown.out  # not measured
        assert ("scaled" if code == 0 else "--force") in shown.err
    assert fitting.load(out) == fitting.fit([path])
