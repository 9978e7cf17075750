"""The cost model: fitted to known times, islands placed as a search over all subsets places them, files that run."""

import json
import math
from dataclasses import replace
from itertools import chain, combinations, product
from pathlib import Path
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch

from qhyvit import affine, api, stages
from qhyvit.cli import main
from qhyvit.config import DataConfig, MethodConfig, TargetConfig
from qhyvit.errors import InputError, PlanError, UsageError
from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency import KernelTime, KernelWork, LatencyProfile, default_profile
from qhyvit.latency import fit as fitting
from qhyvit.latency.profile import packaged
from qhyvit.latency.work import LANES, TABLE, is_sum_of_squares, work
from qhyvit.lowering import placement
from qhyvit.lowering.lower import lower, quantized_file
from qhyvit.lowering.placement import Times, Worth, place, times
from qhyvit.lowering.profiles import ids_of, placed, with_islands
from qhyvit.methods import method
from qhyvit.methods.shared import islands
from qhyvit.methods.shared.islands import GAIN_PER_TIME, GAIN_PER_TIME_FAR, gain_per_ms
from qhyvit.methods.shared.problem import Problem
from qhyvit.methods.shared.range_search import ranges_behind
from qhyvit.observers.shared.histogram import Histogram
from qhyvit.ops import all_ops, spec
from qhyvit.passes import float_sums_of_squares, prepared
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.sim.run import Executor
from qhyvit.tflite.read import read
from qhyvit.verify.census import census
from qhyvit.verify.report import verify
from qhyvit.work import FACTS, FLOAT, LATENCY, Work
from tests._targets import BY_PROFILE, CPU

ELEMENTS = 400  # a softmax over more is always float
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


def test_the_cut_is_the_cheapest_however_far_apart_capacities_are():
    """It lies behind b: 0.25 + 1e-6 there, 0.3 in front of it, 1e30 and no limit elsewhere."""
    net = nx.DiGraph()
    for tail, head, ms in (("int8", "a", 1e30), ("a", "b", 0.3), ("b", "c", 0.25), ("b", "float", 1e-6)):
        net.add_edge(tail, head, capacity=ms)
    net.add_edge("c", "float")
    assert placement._cut(net) == {"c", "float"}


@pytest.mark.parametrize("seed", range(20))
def test_the_cut_is_brute_force_s_whatever_the_order_of_the_nodes(seed):
    """Of cheapest cuts the smallest on the side of float; tenths have no exact sums in binary."""
    rng = np.random.default_rng(seed)
    ends, inner = ["int8", "float"], [f"node {i}" for i in range(7)]
    edges = [(a, b, float(rng.integers(1, 4)) / 10) for a in [ends[0], *inner] for b in [*inner, ends[1]]
             if a != b and rng.random() < 0.4]  # fmt: skip
    costs = {}
    for part in product((False, True), repeat=len(inner)):
        side = {"float", *(n for n, is_float in zip(inner, part, strict=True) if is_float)}
        costs[frozenset(side)] = sum(round(1000 * ms) for a, b, ms in edges if a not in side and b in side)
    expected = min(costs, key=lambda side: (costs[side], len(side)))
    for order in (edges, edges[::-1], [edges[i] for i in rng.permutation(len(edges))]):
        net = nx.DiGraph()
        net.add_nodes_from(ends)
        for a, b, ms in order:
            net.add_edge(a, b, capacity=ms)
        assert placement._cut(net) == expected


def test_another_pace_changes_no_placement(small_v1):
    slow = default_profile().scaled(20.0)
    assert slow.kernels["ADD int8"].fixed_us == pytest.approx(20 * default_profile().kernels["ADD int8"].fixed_us)
    assert slow.partition_us == pytest.approx(20 * default_profile().partition_us)
    graph = small_v1.graph
    assert place(graph, slow) == place(graph, default_profile())


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


# --- placement ---


def network(seed, count=9):
    """Random elementwise nodes, each reading one or two tensors before it; the last one ends the graph."""
    rng = np.random.default_rng(seed)
    tensors = {i: Tensor(i, f"t{i}", (1, ELEMENTS), "FLOAT32") for i in range(count + 1)}
    nodes = []
    for i in range(1, count + 1):
        a, b = sorted(rng.integers(max(0, i - 3), i, 2).tolist())
        op, inputs = ("ADD", (a, b)) if a != b else ("GELU", (a,))
        nodes.append(Node(op, spec(op).attrs(), inputs, (i,)))
    return Graph(tensors, tuple(nodes), (0,), (count,))


def total_ms(graph, cost, floats):
    """Time of the nodes that have a choice, and of all borders, where the nodes with outputs ``floats`` are float."""
    ms = sum(cost.floats[t] if t in floats else cost.narrow(t) for t in cost.int8)
    for tensor in graph.activations():
        writer, readers = graph.producer(tensor.id), graph.users(tensor.id)
        are_float = [r.outputs[0] in floats for r in readers]
        if writer is not None and writer.outputs[0] in floats:
            ms += cost.quantize[tensor.id] * (not all(are_float))
        else:
            ms += cost.dequantize[tensor.id] * any(are_float)
    return ms


def random_times(graph, seed):
    rng = np.random.default_rng(seed)
    ids = [n.outputs[0] for n in graph.nodes[:-1]]

    def some(keys, high):
        return {t: float(v) for t, v in zip(keys, rng.uniform(0, high, len(keys)), strict=True)}

    return Times(some(ids, 3), some(ids, 3), {}, some(graph.tensors, 1), some(graph.tensors, 1), ())


@pytest.mark.parametrize("seed", range(12))
def test_the_cut_is_the_best_of_all_subsets(monkeypatch, seed):
    graph = network(seed)
    cost = random_times(graph, seed)
    rng = np.random.default_rng(seed + 100)
    worth = Worth({t: float(rng.uniform(0, 1)) for t in cost.int8}, {t: float(rng.uniform(0, 1)) for t in cost.int8})

    def loss(floats):
        lost = sum(worth.free[t] for t in cost.int8 if t not in floats)
        for t in cost.int8:
            readers = [u.outputs[0] for u in graph.users(t)]
            lost += worth.unrounded[t] * sum(not {t, r} <= set(floats) for r in readers) / max(len(readers), 1)
        return total_ms(graph, cost, floats) + lost

    everything = chain.from_iterable(combinations(cost.int8, k) for k in range(len(cost.int8) + 1))
    best = min(map(loss, everything))
    monkeypatch.setattr("qhyvit.lowering.placement.times", lambda graph, latency, *, int16: cost)
    assert loss(place(graph, default_profile(), worth)) == pytest.approx(best)


def line(*ops):
    """x -> ops in a row -> FULLY_CONNECTED, which ends the graph and keeps its weights int8."""
    count = len(ops)
    tensors = {i: Tensor(i, f"t{i}", (1, ELEMENTS), "FLOAT32") for i in range(count + 2)}
    weight = Tensor(99, "w", (ELEMENTS, ELEMENTS), "FLOAT32", np.zeros((ELEMENTS, ELEMENTS), np.float32))
    nodes = [Node(op, spec(op).attrs(), (i,), (i + 1,)) for i, op in enumerate(ops)]
    last = Node("FULLY_CONNECTED", spec("FULLY_CONNECTED").attrs(), (count, 99), (count + 1,))
    return Graph({**tensors, 99: weight}, (*nodes, last), (0,), (count + 1,))


def made_up(border_us=1.0, **us):
    """A profile with these microseconds a call: GELU_int8=3 is the kernel ``GELU int8``."""
    kernels = {k.replace("_", " "): KernelTime(fixed_us=v) for k, v in us.items()}
    borders = dict.fromkeys(("DEQUANTIZE int8>float32", "QUANTIZE float32>int8"), KernelTime(fixed_us=border_us))
    return LatencyProfile("made up", kernels={**kernels, **borders})


def test_borders_decide_and_neighbours_share_them():
    slow = made_up(border_us=2.0, SOFTMAX_int8=9, SOFTMAX_float32=1, LOGISTIC_int8=2, LOGISTIC_float32=3)
    assert place(line("SOFTMAX"), slow) == {1}
    # one LOGISTIC between costs 1 us more in float than in int8, two borders 4
    assert place(line("SOFTMAX", "LOGISTIC", "SOFTMAX"), slow) == {1, 2, 3}
    far = made_up(border_us=0.4, SOFTMAX_int8=9, SOFTMAX_float32=1, LOGISTIC_int8=2, LOGISTIC_float32=3)
    assert place(line("SOFTMAX", "LOGISTIC", "SOFTMAX"), far) == {1, 3}
    dear = made_up(border_us=4.1, SOFTMAX_int8=9, SOFTMAX_float32=1)
    assert place(line("SOFTMAX"), dear) == frozenset()
    assert place(line("SOFTMAX"), LatencyProfile("knows nothing")) == frozenset()


def test_what_int8_cannot_do_is_float_whatever_it_takes():
    dear = made_up(border_us=1000.0, SOFTMAX_int8=1, SOFTMAX_float32=9)
    assert place(line("EXP"), dear) == {1}
    assert place(line("SOFTMAX", "EXP", "NEG", "SOFTMAX"), dear) == {2, 3}
    table = replace(dear, kernels={**dear.kernels, TABLE: KernelTime(fixed_us=2)})
    assert place(line("EXP"), table) == {1}


def exponentials(*ops):
    """x -> ops in a row -> EXP, its sums by a product with ones, DIV -> FULLY_CONNECTED."""
    before, graph = len(ops), line(*ops, "EXP")
    t = before + 1
    ones = Tensor(98, "ones", (ELEMENTS, ELEMENTS), "FLOAT32", np.ones((ELEMENTS, ELEMENTS), np.float32))
    total, share, y = (Tensor(100 + i, f"s{i}", (1, ELEMENTS), "FLOAT32") for i in range(3))
    layer = graph.nodes[-1]
    made = (
        Node("BATCH_MATMUL", spec("BATCH_MATMUL").attrs(), (t, 98), (100,)),
        Node("DIV", spec("DIV").attrs(), (t, 100), (101,)), replace(layer, inputs=(101, 99), outputs=(102,)),
    )  # fmt: skip
    tensors = {n: v for n, v in graph.tensors.items() if n not in layer.outputs}
    return Graph({**tensors, **{v.id: v for v in (ones, total, share, y)}}, (*graph.nodes[:-1], *made), (0,), (102,))


def test_exponentials_are_added_up_in_float_and_what_they_read_stays_int8():
    slow = made_up(GELU_float32=1, GELU_int8=1000, EXP_float32=50)
    products = {f"BATCH_MATMUL/few {t}": KernelTime(fixed_us=us) for t, us in (("float32", 1000), ("int8", 1))}
    assert place(exponentials(), slow) == {1, 100, 101}  # products are unknown
    slow = replace(slow, kernels={**slow.kernels, **products})
    assert place(exponentials(), slow) == {1, 100, 101}
    found = place(exponentials("GELU"), slow)
    assert found == {2, 100, 101}
    assert place(line("GELU", "EXP"), slow) == {1, 2}  # no quotient: it may be float
    table = replace(slow, kernels={**slow.kernels, TABLE: KernelTime(fixed_us=0.1)})
    assert place(exponentials(), table) == {1, 100, 101}
    assert place(line("NEG", "EXP", "NEG"), table) == {1, 2, 3}  # between float ops it is no table


def test_a_quotient_is_float_in_cpu_and_refused_in_integer():
    tensors = {i: Tensor(i, f"t{i}", (1, 4, 8), "FLOAT32") for i in range(3)}
    half = Tensor(9, "half", (), "FLOAT32", np.array(0.5, np.float32))
    nodes = Node("ADD", spec("ADD").attrs(), (0, 9), (1,)), Node("DIV", spec("DIV").attrs(), (0, 1), (2,))
    last = Node("MUL", spec("MUL").attrs(), (2, 9), (3,))
    out = Tensor(3, "t3", (1, 4, 8), "FLOAT32")
    graph = Graph({**tensors, 3: out, 9: half}, (*nodes, last), (0,), (3,))
    images = torch.rand(4, 4, 8, generator=torch.Generator().manual_seed(0))
    for profile in ("cpu", "integer"):
        made = placed(graph, BY_PROFILE[profile])
        assert ("DIV" in {made.producer(t).op for t in made.islands}) == (profile == "cpu")
        solution = method("minmax").search(Problem(made, images, target=BY_PROFILE[profile]), {"observer": "minmax"})
        plan = QuantPlan(solution.tensors, "minmax", profile=profile)
        if profile == "cpu":
            assert ("DIV", "FLOAT32") in census(quantized_file(solution.shipped, plan)).ops
        else:
            with pytest.raises(PlanError, match=r"DIV 't2' has no int8 kernel that is right: .*--no-integer"):
                quantized_file(solution.shipped, plan)


def test_accuracy_buys_time():
    equal = made_up(border_us=1.0, SOFTMAX_int8=3, SOFTMAX_float32=3)
    assert place(line("SOFTMAX"), equal) == frozenset()
    assert place(line("SOFTMAX"), equal, Worth(free={1: 0.0019})) == frozenset()
    assert place(line("SOFTMAX"), equal, Worth(free={1: 0.0021})) == {1}
    assert place(line("SOFTMAX", "SOFTMAX"), equal, Worth(unrounded={1: 0.0021})) == {1, 2}


def test_a_copy_that_an_int8_op_reads_is_rounded_too():
    kernels = {f"{op}_{dtype}": 3 for op in ("SOFTMAX", "RESHAPE") for dtype in ("int8", "float32")}
    equal = made_up(border_us=1.0, **kernels)
    assert place(line("SOFTMAX", "RESHAPE", "SOFTMAX"), equal, Worth(unrounded={1: 0.0021})) == {1, 2, 3}
    assert place(line("SOFTMAX", "RESHAPE"), equal, Worth(unrounded={1: 0.0021})) == frozenset()
    assert place(line("RESHAPE", "SOFTMAX", "RESHAPE"), equal, Worth(unrounded={2: 0.0021})) == frozenset()


def test_a_table_of_codes_beats_a_slow_kernel_and_a_float_one():
    table = replace(made_up(), kernels={**made_up(GELU_int8=9, GELU_float32=8).kernels, TABLE: KernelTime(fixed_us=2)})
    assert place(line("GELU"), table) == {1}
    assert place(line("GELU", "GELU"), table) == {1}  # side by side they would be one island, and no table
    slow = replace(table, kernels={**table.kernels, TABLE: KernelTime(fixed_us=9.5)})
    assert place(line("GELU"), slow) == frozenset()


def test_a_parted_graph_counts():
    apart = replace(made_up(SOFTMAX_int8=3, SOFTMAX_float32=2), partition_us=2.0)
    assert place(line("SOFTMAX"), apart) == frozenset()
    builtin = replace(apart.kernels["SOFTMAX int8"], builtin=True)
    assert place(line("SOFTMAX"), replace(apart, kernels={**apart.kernels, "SOFTMAX int8": builtin})) == {1}


def test_an_objective_is_worth_time_by_the_share_that_it_loses():
    graph = line("SOFTMAX")
    histogram = Histogram(None)
    x = torch.linspace(0, 0.02, 1000)
    histogram.update(x, torch.ones(1000))
    seen = SimpleNamespace(peak={1: None}, histograms={1: histogram})
    error = float(((x - torch.round(x * 256) / 256) ** 2).sum())
    found = islands.worth(graph, seen, {}, per_ms=10 * error)
    assert found.free[1] + found.unrounded[1] == pytest.approx(0.1, rel=0.02)
    assert found.free[1] > 30 * found.unrounded[1]


def test_a_little_accuracy_does_not_buy_much_time():
    """A tenth of the objective for a tenth of the time would slow the file down for nothing that anyone sees."""
    latency = made_up(border_us=0.15, SOFTMAX_int8=3, SOFTMAX_float32=3)
    graph = line("SOFTMAX")
    price = gain_per_ms(graph, latency)
    for share, expected in ((0.1, frozenset()), (0.5, {1})):
        assert place(graph, latency, Worth({1: share / price}, {})) == expected


def test_time_is_worth_its_share_of_the_whole():
    graph = line("SOFTMAX")
    slow = made_up(SOFTMAX_int8=3, SOFTMAX_float32=2)
    ten_times = replace(slow, kernels={n: replace(k, fixed_us=10 * k.fixed_us) for n, k in slow.kernels.items()})
    assert gain_per_ms(graph, slow) == pytest.approx(GAIN_PER_TIME / 0.002)  # the faster way takes 2 microseconds
    assert gain_per_ms(graph, ten_times) == pytest.approx(GAIN_PER_TIME / 0.02)
    assert gain_per_ms(graph, slow, far=False) == gain_per_ms(graph, slow)
    assert gain_per_ms(graph, slow, far=True) == pytest.approx(GAIN_PER_TIME_FAR / 0.002)


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


# --- whole files ---


def scaled(factor, *names):
    """The default with some kernels slower or faster, by the beginnings of their names."""
    default = default_profile()

    def one(name, k):
        times_ = factor if name.startswith(names) else 1
        return replace(k, fixed_us=k.fixed_us * times_, ns_per_element=k.ns_per_element * times_)

    return replace(default, kernels={n: one(n, k) for n, k in default.kernels.items()})


def built(graph, inputs):
    solution = method("minmax").search(Problem(graph, inputs[:4]), {"observer": "minmax"})
    graph, plan = solution.graph, QuantPlan(solution.tensors, "minmax", profile="cpu")
    data = quantized_file(graph, plan)
    entry = plan.tensors[graph.tensors[graph.inputs[0]].name]
    codes = [
        affine.quantize(x[None].numpy(), entry.scale[0], entry.zero_point[0], affine.grid()).astype(np.int8)
        for x in inputs[:2]
    ]
    report = verify(graph, lower(graph, plan), data, inputs[:2], codes)
    assert not {c.name: c.detail for c in report.checks if "decide" not in c.name and not c.passed}
    return census(data)


def test_the_default_leaves_softmax_and_roots_in_float(small, enlarged):
    graph = placed(small.graph, replace(CPU, times=enlarged))
    int8 = [n for n in graph.nodes if n.op in ("SOFTMAX", "RSQRT") and n.is_int8]
    # rows that do not fill a vector take as long in XNNPACK's softmax as dozens of elements in its int8 rival
    assert {n.op for n in int8} <= {"SOFTMAX"}
    assert all(graph.tensors[n.outputs[0]].shape[-1] < LANES for n in int8)
    assert any(n.op == "SOFTMAX" and not n.is_int8 for n in graph.nodes)


def test_where_everything_float_is_slow_there_are_no_islands(small_v1):
    default = default_profile()
    slow = {n: replace(k, fixed_us=1e6) if "float32" in n or n == TABLE else k for n, k in default.kernels.items()}
    assert not placed(small_v1.graph, replace(CPU, times=replace(default, kernels=slow))).islands


def test_a_slow_sum_is_computed_in_float_and_the_file_agrees(small_v1, inputs):
    """Islands all over the residual stream, tensors read in both types among them."""
    graph = placed(prepared(read(small_v1.tflite), CPU), replace(CPU, times=scaled(20, "ADD int8")))
    sums = [n for n in graph.nodes if n.op == "ADD"]
    assert sum(not n.is_int8 for n in sums) > len(sums) / 2
    both = [t for t in graph.islands if graph.is_both(t)]
    assert both
    found = built(graph, inputs)
    assert found.ops[("ADD", "FLOAT32")] == sum(not n.is_int8 for n in sums)


def test_sums_of_squares_in_float_are_mul_and_sum_in_the_file(small_v2, enlarged, inputs):
    """XNNPACK's BATCH_MATMUL of a row with itself took 11 of 16 ms of mobilevitv2_075."""
    graph = placed(small_v2.graph, replace(CPU, times=enlarged))
    squares = [n for n in graph.nodes if is_sum_of_squares(graph, n)]
    assert len(squares) == 21
    assert all(not n.is_int8 and graph.stays_inside(n.inputs[0]) for n in squares)
    products = [n for n in graph.nodes if n.op == "BATCH_MATMUL" and not n.is_int8]
    found = built(graph, inputs)
    assert found.ops[("SUM", "FLOAT32")] == len(squares)
    assert found.ops.get(("BATCH_MATMUL", "FLOAT32"), 0) == len(products) - len(squares)
    shipped = Executor(float_sums_of_squares.apply(graph), torch.float64).rows(inputs[:2])
    expected = Executor(graph, torch.float64).rows(inputs[:2])
    assert float((shipped - expected).abs().max()) < 1e-9 * float(expected.abs().max())


def test_a_right_operand_of_squares_is_float_only_with_them(small_v2):
    default = default_profile()
    slow = {n: replace(k, ns_per_element=1e3) if n == "SUM float32" else k for n, k in default.kernels.items()}
    graph = placed(small_v2.graph, replace(CPU, times=replace(default, kernels=slow)))
    squares = [n for n in graph.nodes if is_sum_of_squares(graph, n)]
    assert not any(not n.is_int8 or n.inputs[0] in graph.islands for n in squares)


def test_float_readers_see_what_int8_readers_see_rounded():
    graph = line("GELU", "GELU")
    last = replace_inputs(graph.nodes[-1], (1, 99))
    graph = replace(graph, nodes=(*graph.nodes[:-1], last))
    graph = with_islands(graph, "cpu", {1, 2})  # t1: read by GELU and the layer
    assert graph.is_both(1)
    assert not graph.is_both(2)
    x = torch.linspace(-2, 2, ELEMENTS)[None]
    seen = []

    def hook(tensor, y, node):
        return y * 0 if tensor.id == 1 else y

    for floats in (graph.islands, frozenset()):
        found = Executor(with_islands(graph, "cpu", floats)).run(x, hook, (1, 2))
        assert not found[1].any()
        seen.append(bool(found[2].any()))
    assert seen == [True, False]


def replace_inputs(node, inputs):
    return Node(node.op, node.attrs, inputs, node.outputs)


def test_names_bring_islands_back(small_v1):
    graph = placed(small_v1.graph, CPU)
    names = tuple(graph.tensors[t].name for t in graph.islands)
    plan = QuantPlan({}, "minmax", profile="cpu", floats=names, latency="Pi")
    again = QuantPlan.from_json(plan.to_json())
    assert with_islands(small_v1.graph, "cpu", ids_of(small_v1.graph, again.floats)).islands == graph.islands
    assert again.latency == "Pi"


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


def test_a_build_takes_a_profile_and_keeps_it(tmp_path, small_v1, pictures):
    from PIL import Image

    for i, picture in enumerate(pictures[:4]):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    board = tmp_path / "slow.json"
    board.write_text(scaled(20, "ADD int8").to_json())
    plans = []
    for number, file in enumerate(("litert", board)):
        work = Work(tmp_path / f"w{number}")
        work.folder.mkdir()
        (work.folder / FLOAT).write_bytes(small_v1.tflite)
        (work.folder / FACTS).write_text(json.dumps(small_v1.facts))
        target = TargetConfig(str(file), integer=False)
        stages.calibrate(work, DataConfig(tmp_path, 4, "squash"), MethodConfig("minmax"), target)
        plans.append(stages.plan_of(work))
        solved = stages.solved(work).folded
        assert {solved.tensors[t].name for t in solved.islands} == set(plans[-1].floats)
        kept = json.loads((work.folder / LATENCY).read_text())
        assert kept == json.loads(board.read_text() if number else default_profile().to_json())
    assert len(plans[1].floats) > len(plans[0].floats)


def test_a_profile_that_is_not_there_costs_no_export(tmp_path, pictures):
    from PIL import Image

    Image.fromarray(pictures[0]).save(tmp_path / "0.png")
    for name, words in (("litert-cortex-a99", "unknown target 'litert-cortex-a99'"), ("a.json", "a.json does not")):
        with pytest.raises((InputError, UsageError), match=words):
            api.build("mobilevit_xxs", tmp_path, tmp_path / "out", target=name)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} <= {"0.png", "lock"}


def test_the_profile_names_every_op_of_the_default_islands(small):
    known = times(small.graph, default_profile()).int8
    assert known.keys() >= {n.outputs[0] for n in small.graph.nodes if n.op in ("SOFTMAX", "RSQRT")}


def attention_like():
    """Picture [1, 4, 4, 3] -> CONV_2D -> SOFTMAX over 8 channels -> CONV_2D -> MEAN -> 5 logits."""
    rng = np.random.default_rng(0)
    shapes = {"x": (1, 4, 4, 3), "a": (1, 4, 4, 8), "s": (1, 4, 4, 8), "b": (1, 4, 4, 5), "y": (1, 5)}
    tensors = {i: Tensor(i, name, shape, "FLOAT32") for i, (name, shape) in enumerate(shapes.items())}
    for i, shape in ((10, (8, 1, 1, 3)), (11, (8,)), (12, (5, 1, 1, 8)), (13, (5,))):
        data = rng.normal(0, 2, shape).astype(np.float32)
        tensors[i] = Tensor(i, f"w{i}", shape, "FLOAT32", data)
    tensors[14] = Tensor(14, "axes", (2,), "INT32", np.array([1, 2], np.int32))
    conv = spec("CONV_2D").attrs()
    nodes = (
        Node("CONV_2D", conv, (0, 10, 11), (1,)), Node("SOFTMAX", spec("SOFTMAX").attrs(), (1,), (2,)),
        Node("CONV_2D", conv, (2, 12, 13), (3,)), Node("MEAN", spec("MEAN").attrs(), (3, 14), (4,)),
    )  # fmt: skip
    return Graph(tensors, nodes, (0,), (4,))


def test_the_method_buys_accuracy_with_float_kernels():
    """Float is slower for softmax here, by so little of the whole that the objective takes it."""
    small = made_up(border_us=0.1, SOFTMAX_int8=3, SOFTMAX_float32=3)
    latency = replace(small, kernels={**small.kernels, "CONV_2D int8": KernelTime(fixed_us=1000.0)})
    graph, chosen, said = attention_like(), method("qhyvit"), []
    assert not placed(graph, replace(CPU, times=latency)).islands
    options = {**chosen.defaults, "rounds": 2, "learn": 0, "ridge": 0.0, "rounding": False, "bias": False}
    images = torch.rand(8, 4, 4, 3, generator=torch.Generator().manual_seed(0))
    problem = Problem(graph, images, target=replace(CPU, times=latency), log=said.append)
    solution = chosen.search(problem, options)
    assert solution.graph.islands == {2}
    assert "float kernel for s" in said
    assert not solution.graph.widened
    plan = QuantPlan(solution.tensors, "qhyvit", profile="cpu")
    assert census(quantized_file(solution.shipped, plan)).ops[("SOFTMAX", "FLOAT32")] == 1
    stays = chosen.search(replace(problem, target=replace(problem.target, floats=False)), {**options, "int16_ms": 0.0})
    assert not stays.graph.islands


def test_a_range_that_a_float_kernel_read_is_mended_for_the_int8_one():
    """RSQRT takes nothing below its lowest code; a mean that a float root read had zero point 0: no file was made."""
    graph = line("GELU", "RSQRT")
    keep = {t.name: TensorQuant((0.1,), (0,)) for t in graph.activations()}
    chosen = ranges_behind(Problem(graph, torch.zeros(1, ELEMENTS)), keep, {})
    by_name = {graph.tensors[g.members[0]].name: q for g, q in chosen.items()}
    assert by_name["t1"].zero_point == (-128,)
    assert by_name["t1"].scale[0] * 255 == pytest.approx(12.7)
    assert by_name["t0"] == keep["t0"]
