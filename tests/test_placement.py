"""Float islands are placed as a search over all subsets places them, by times and by what accuracy is worth."""

from dataclasses import replace
from itertools import chain, combinations, product
from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest
import torch

from qhyvit.graph.ir import Graph, Node, Tensor
from qhyvit.latency import KernelTime, LatencyProfile, default_profile
from qhyvit.latency.work import TABLE
from qhyvit.lowering import placement
from qhyvit.lowering.placement import Times, Worth, place, times
from qhyvit.methods.shared import islands
from qhyvit.methods.shared.islands import GAIN_PER_TIME, GAIN_PER_TIME_FAR, gain_per_ms
from qhyvit.observers.shared.histogram import Histogram
from qhyvit.ops import spec
from tests._islands import ELEMENTS, line, made_up


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


def test_the_profile_names_every_op_of_the_default_islands(small):
    known = times(small.graph, default_profile()).int8
    assert known.keys() >= {n.outputs[0] for n in small.graph.nodes if n.op in ("SOFTMAX", "RSQRT")}
