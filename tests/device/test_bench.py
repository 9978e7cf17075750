"""The bench: its figures against closed forms, the board's facts from a tree of files, and runs of real models."""

import json
import os
import shutil
import statistics as standard
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qhyvit_device import Model, board, manifest, profile, report, trust
from qhyvit_device.bench import BenchSettings, MeasuredModel, bench, open_subject, rounds, sustained
from qhyvit_device.board import Board, BoardState
from qhyvit_device.cli import main
from qhyvit_device.errors import DeviceError, InputError
from qhyvit_device.info import self_test
from qhyvit_device.statistics import ratio, summarize

QUICK = BenchSettings(runs=6, seconds=0.0, warmup=1)


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60))
def test_figures_are_those_of_the_standard_library(samples):
    found = summarize(samples)
    assert found.count == len(samples)
    assert found.p50 == pytest.approx(standard.median(samples))
    assert found.mean == pytest.approx(standard.fmean(samples))
    assert found.std == pytest.approx(standard.stdev(samples) if len(samples) > 1 else 0.0, abs=1e-9)
    if len(samples) > 1:
        cuts = standard.quantiles(samples, n=100, method="inclusive")
        assert (found.p90, found.p95, found.p99) == pytest.approx((cuts[89], cuts[94], cuts[98]))
    assert found.min <= found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.max


@given(st.lists(st.floats(0.5, 50), min_size=1, max_size=40), st.floats(0.1, 10), st.data())
def test_what_slows_a_whole_round_cancels_in_the_ratio(base, times, data):
    slow = data.draw(st.lists(st.floats(1, 100), min_size=len(base), max_size=len(base)))
    a = [b * times * s for b, s in zip(base, slow, strict=True)]
    found = ratio(a, [b * s for b, s in zip(base, slow, strict=True)])
    assert (found.low, found.median, found.high) == pytest.approx((times, times, times))


def pi(root, **files):
    """A Raspberry Pi 4 as its files show it."""
    texts = {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd crc32 asimddp\nCPU part\t: 0xd08\n\nprocessor\t: 1\n",
        "proc/meminfo": "MemTotal:        3884312 kB\nMemFree: 1 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1800000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/class/thermal/thermal_zone0/temp": "51234\n",
        **files,
    }
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_board_is_known_by_its_files(tmp_path):
    found, now = board.board(pi(tmp_path)), board.state(tmp_path)
    assert (found.board, found.processor) == ("Raspberry Pi 4 Model B Rev 1.4", "Cortex-A72")
    assert (found.features, found.memory_mib) == (("asimddp",), 3793)
    assert (now.frequency_khz, now.max_khz) == ({"cpu0": 600000}, {"cpu0": 1800000})
    assert (now.governor, now.temperature_c, now.throttled) == ("ondemand", 51.234, None)


STAT = "cpu  {} 0 0 {} 50 0 0 0 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\ncpu1 1 0 0 1 0 0 0 0 0 0\nintr 5\n"


@pytest.mark.parametrize(("user", "idle", "busy"), [(100, 1100, 0.0), (150, 1050, 1.0), (200, 1000, 2.0)])
def test_the_load_is_what_others_take_while_it_is_watched(monkeypatch, tmp_path, user, idle, busy):
    """The minute's load holds this program's own last run; two runs in a row warned of each other."""
    pi(tmp_path, **{"proc/stat": STAT.format(100, 1000)})
    monkeypatch.setattr(board.time, "sleep", lambda _: pi(tmp_path, **{"proc/stat": STAT.format(user, idle)}))
    assert board.state(tmp_path).load is None
    assert board.state(tmp_path, watch_s=1.0).load == pytest.approx(busy)


def test_an_arm64_program_on_another_processor_is_emulated(tmp_path):
    assert not board._emulated("aarch64", tmp_path)  # no /sys at all: it can't be told
    pi(tmp_path)
    assert board._emulated("aarch64", tmp_path)
    assert not board._emulated("x86_64", tmp_path)
    register = tmp_path / "sys/devices/system/cpu/cpu0/regs/identification/midr_el1"
    register.parent.mkdir(parents=True)
    register.write_text("0x00000000410fd083\n")
    assert not board._emulated("aarch64", tmp_path)


def test_nothing_is_known_where_no_file_is(tmp_path):
    found, now = board.board(tmp_path), board.state(tmp_path)
    assert (found.board, found.processor, found.features, found.memory_mib) == (None, None, (), None)
    assert (now.frequency_khz, now.governor, now.temperature_c) == ({}, None, None)


PLAIN = Board("Pi", "A72", "aarch64", 4, (), 4000, "6", False)
STEADY = {"a": summarize([1.0] * 20)}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (BoardState(load=0.0), BoardState(), []),
        (BoardState(load=1.5), BoardState(), ["kept 1.5 processors busy"]),
        (BoardState({"cpu0": 1800000}, load=0.0), BoardState({"cpu0": 600000}), ["went from 1800 to 600 MHz"]),
        (BoardState(governor="ondemand"), BoardState(), ["echo performance"]),
        (BoardState(governor="performance"), BoardState(), []),
        (BoardState(throttled=0), BoardState(throttled=0b100), ["throttled: use a stronger"]),
        (BoardState(throttled=0x10000), BoardState(throttled=0x10000), []),
        (BoardState(throttled=0x10000), BoardState(throttled=0x50000), ["throttled during the run"]),
    ],
)
def test_a_run_that_cannot_be_trusted_says_why(before, after, words):
    said = trust.warnings(PLAIN, before, after, STEADY, {"a": 3}, "ai-edge-litert")
    assert len(said) == len(words)
    assert all(w in s for w, s in zip(words, said, strict=True))


def test_spread_missing_kernels_and_emulation_are_named():
    emulated = Board(None, None, "aarch64", 2, (), None, "6", True)
    spread = {"a": summarize([1.0] * 90 + [3.0] * 10), "b": summarize([1.0])}
    said = trust.warnings(emulated, BoardState(), BoardState(), spread, {"a": 0, "b": None}, "ai-edge-litert")
    assert [s.partition(":")[0] for s in said] == ["this processor is emulated", "a", "a"]


def test_an_old_runtime_is_not_blamed_on_sys():
    (said,) = trust.warnings(PLAIN, BoardState(), BoardState(), STEADY, {"a": 0}, "tflite-runtime")
    assert "pip install ai-edge-litert" in said
    assert "/sys" not in said


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_v1, inputs):
    from qhyvit.lowering.lower import quantized_file
    from qhyvit.methods import method
    from qhyvit.methods.shared.problem import Problem
    from qhyvit.plan import QuantPlan

    folder = tmp_path_factory.mktemp("models")
    solution = method("minmax").search(Problem(small_v1.graph, inputs[:4]), {"observer": "minmax"})
    (folder / "int8.tflite").write_bytes(quantized_file(solution.shipped, QuantPlan(solution.tensors, "minmax")))
    (folder / "float.tflite").write_bytes(small_v1.tflite)
    return folder


def test_models_are_interleaved_and_compared_with_the_first(files):
    found = bench([files / "float.tflite", files / "int8.tflite"], QUICK)
    first, second = found["models"]
    assert [m["model"] for m in (first, second)] == ["float.tflite", "int8.tflite"]
    assert all(len(m["samples_ms"]["inference"]) == m["inference"]["count"] == 6 for m in (first, second))
    expected = np.median(np.divide(second["samples_ms"]["inference"], first["samples_ms"]["inference"]))
    assert second["ratio_to_float.tflite"]["median"] == pytest.approx(expected, rel=0.02)
    assert "ratio_to_float.tflite" not in first
    assert second["delegate_partitions"] > 1
    assert 20 < second["peak_memory_mib"] < 400
    shown = report.table(found)
    assert "x float.tflite" in shown
    assert all(f"warning: {w}" in shown for w in found["warnings"])


def test_models_have_turns_of_several_inferences(files, monkeypatch):
    order = []
    monkeypatch.setattr(MeasuredModel, "once", lambda subject: order.append(subject.name))
    subjects = [open_subject(files / f"{name}.tflite", 1) for name in ("float", "int8")]
    rounds(subjects, replace(QUICK, runs=5, warmup=0, turn=3), lambda what, share: None)
    assert order == (["float.tflite"] * 3 + ["int8.tflite"] * 3) * 2  # five inferences at least


def test_memory_is_that_of_the_model_alone(files):
    big = np.ones(200 << 17)  # 200 MiB in this process
    found = bench([files / "int8.tflite"], QUICK)["models"][0]["peak_memory_mib"]
    assert found < 200 < big.nbytes / 2**20 + 1


def test_rounds_go_on_until_both_limits_are_met(files):
    found = bench([files / "int8.tflite"], BenchSettings(runs=2, seconds=0.3, warmup=0), memory=False)["models"][0]
    total = sum(sum(x) for x in found["samples_ms"].values())
    assert found["inference"]["count"] > 2
    assert total >= 250


def test_a_sustained_run_has_windows(files, monkeypatch):
    monkeypatch.setattr("qhyvit_device.bench.WINDOW_SECONDS", 0.1)
    windows = sustained([open_subject(files / "int8.tflite", 1)], 0.3 / 60, lambda what, share: None)
    assert len(windows) >= 2
    assert all(w["p50_ms"]["int8.tflite"] > 0 for w in windows)
    assert [w["second"] for w in windows] == sorted(w["second"] for w in windows)


def test_the_table_of_one_model_has_no_ratio(files):
    found = bench([files / "int8.tflite"], QUICK, minutes=0.001, memory=False)
    shown = report.table(found)
    assert "x int8.tflite" not in shown
    assert "int8.tflite p50" in shown  # the sustained part


def test_ops_are_summed_by_name_without_whole_partitions():
    events = [
        ("SOFTMAX", 2, 30), ("SOFTMAX", 2, 50), ("TfLiteXNNPackDelegate", 2, 500), ("Conv", 8, 100), ("Conv", 8, 140),
        ("Conv", 8, 60), ("Conv", 8, 20), ("Invoke", 1, 900),
    ]  # fmt: skip
    found = profile.by_name(events, 2)
    assert [(o.op, o.kernel, o.count, o.us) for o in found] == [
        ("Conv", "xnnpack", 2, 160.0), ("SOFTMAX", "builtin", 1, 40.0),
    ]  # fmt: skip
    assert sum(o.share for o in found) == pytest.approx(1)


def test_every_op_has_the_mean_of_the_faster_half_of_its_runs():
    runs = [(20, 3), (80, 5), (22, 4)]  # one run was disturbed
    events = [
        e for conv, softmax in runs for e in (
            ("Invoke", 1, conv + softmax + 7, 0), ("Conv", 8, conv, 0), ("SOFTMAX", 2, softmax, 4),
            ("TfLiteXNNPackDelegate", 2, conv, 9),
        )
    ]  # fmt: skip
    found = profile.one_by_one(events, 3)
    assert [(e.name, e.kernel, e.node, e.us) for e in found] == [
        ("Conv", "xnnpack", None, 21.0), ("SOFTMAX", "builtin", 4, 3.5),
    ]  # fmt: skip
    assert profile.overhead(events) == 7
    assert profile.one_by_one(events[:-3], 3) == []  # runs that differ say nothing about one op


def test_a_profile_holds_the_graph_of_the_file(files):
    found = profile.profile(files / "int8.tflite", runs=2)
    nodes, tensors = found.graph["nodes"], found.graph["tensors"]
    assert all(e.node is None or nodes[e.node][0] == e.name for e in found.events)
    written = {t for _, _, outputs in nodes for t in outputs}
    assert {tensors[str(t)][0] for t in written} == {"int8"}
    assert sum(e.kernel == "builtin" for e in found.events) == sum(o.count for o in found.ops if o.kernel == "builtin")


def test_every_op_of_a_file_is_in_its_profile(files):
    from qhyvit.verify.census import census

    found = {(o.op, o.kernel): o for o in profile.profile(files / "int8.tflite", runs=4).ops}
    left = census((files / "int8.tflite").read_bytes()).not_delegated
    assert {op: found[op, "builtin"].count for op in left} == left
    assert sum(o.us for o in found.values() if o.kernel == "xnnpack") > 0


@pytest.mark.parametrize("branches", [5, 6])  # as many operands as XNNPACK takes in a concatenation, and one more
def test_the_census_names_what_the_delegate_leaves_of_ops_that_it_takes_elsewhere(tmp_path, branches):
    from qhyvit.graph.ir import Graph, Node, Tensor
    from qhyvit.lowering.lower import quantized_file
    from qhyvit.methods import method
    from qhyvit.methods.shared.problem import Problem
    from qhyvit.ops import spec
    from qhyvit.plan import QuantPlan
    from qhyvit.verify.census import census

    shape, made = (1, 4, 4, 3), range(1, branches + 1)
    tensors = [Tensor(0, "x", shape, "FLOAT32"), *(Tensor(i, f"y{i}", shape, "FLOAT32") for i in made),
               Tensor(branches + 1, "all", (1, 4, 4, 3 * branches), "FLOAT32")]  # fmt: skip
    nodes = [Node("LOGISTIC", spec("LOGISTIC").attrs(), (0,), (i,)) for i in made]
    join = Node("CONCATENATION", spec("CONCATENATION").attrs(axis=3), tuple(made), (branches + 1,))
    graph = Graph({t.id: t for t in tensors}, (*nodes, join), (0,), (branches + 1,))
    problem = Problem(graph, torch.rand(2, 4, 4, 3))
    solution = method("minmax").search(problem, {"observer": "minmax"})
    path = tmp_path / "m.tflite"
    path.write_bytes(quantized_file(solution.shipped, QuantPlan(solution.tensors, "minmax")))
    left = census(path.read_bytes()).not_delegated
    assert left.get("CONCATENATION", 0) == (branches > 5)
    assert left == {o.op: o.count for o in profile.profile(path, runs=2).ops if o.kernel == "builtin"}


def test_what_cannot_be_measured_is_refused_in_one_line(files, tmp_path, capsys):
    (tmp_path / "bad.tflite").write_bytes(b"no model at all, but long enough")
    for path in (tmp_path / "none", tmp_path / "bad.tflite"):
        with pytest.raises(InputError):
            bench([path], QUICK)
    with pytest.raises(InputError):
        profile.profile(tmp_path / "bad.tflite")
    with pytest.raises(DeviceError, match="--cpus 9999"):
        bench([files / "int8.tflite"], BenchSettings(cpus=(9999,)))
    assert main(["bench", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    target = tmp_path / "no folder" / "x.json"
    assert main(["bench", str(files / "int8.tflite"), "--runs", "1", "--seconds", "0", "--json", str(target)]) == 2


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("b.json")],
                         ids=["fifo", "folder", "link"])  # fmt: skip
def test_what_is_no_file_is_not_replaced_by_results(files, tmp_path, monkeypatch, make, capsys):
    """Before any model runs; a device's node, like /dev/full, stands here as a FIFO."""
    target = tmp_path / "x.json"
    make(target)
    (tmp_path / "b.json").write_text("mine")
    kind = target.lstat().st_mode
    monkeypatch.setattr("qhyvit_device.bench.bench", lambda *_, **__: pytest.fail("it ran"))
    for path in (target, "", tmp_path / "none" / "x.json"):
        assert main(["bench", str(files / "int8.tflite"), "--json", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert target.lstat().st_mode == kind
    assert (tmp_path / "b.json").read_text() == "mine"


def test_a_bundles_own_picture_has_the_limits_of_all(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    Image.new("RGB", (5000, 4000)).save(tmp_path / "b" / "test.png")
    raw = json.loads((tmp_path / "b" / "manifest.json").read_text())
    raw["checksums"]["test.png"] = manifest.sha256(tmp_path / "b" / "test.png")
    (tmp_path / "b" / "manifest.json").write_text(json.dumps(raw))
    for use in (lambda b: bench([b], QUICK), lambda b: self_test(Model.load(b))):
        with pytest.raises(InputError, match="more than 48: too many pixels"):
            use(tmp_path / "b")


def test_the_command_writes_json_and_a_table(files, tmp_path, capsys):
    model, out = str(files / "int8.tflite"), tmp_path / "b.json"
    options = ["--runs", "2", "--seconds", "0", "--no-memory"]
    assert main(["bench", model, *options, "--threads", "1,2", "--profile-ops", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "1 thread;" in shown
    assert "2 threads;" in shown
    assert "time by op" in shown
    written = json.loads(out.read_text())
    assert [b["settings"]["threads"] for b in written["benches"]] == [1, 2]
    assert {"ops", "events", "graph", "overhead_us"} <= set(written["benches"][0]["models"][0])
    assert main(["bench", model, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["benches"][0]["schema_version"] == 1


@pytest.mark.parametrize(("command", "given"), [("bench", "0"), ("bench", "1,0"), ("info", "0"), ("info", "1,2")])
def test_a_number_of_threads_that_cannot_be_is_refused(files, capsys, command, given):
    assert main([command, str(files / "int8.tflite"), "--threads", given]) == 2
    assert given in capsys.readouterr().err


def test_a_run_by_mlperfs_rule_is_long(files, monkeypatch, capsys):
    monkeypatch.setattr("qhyvit_device.bench.MLPERF_SECONDS", 0.0)
    monkeypatch.setattr("qhyvit_device.bench.MLPERF_RUNS", 7)
    assert main(["bench", str(files / "int8.tflite"), "--runs", "1", "--mlperf", "--no-memory"]) == 0
    assert "p90" in capsys.readouterr().out


def test_bench_needs_no_torch(files):
    code = (
        "import sys; sys.modules['torch'] = None; from qhyvit_device.cli import main; "
        "sys.exit(main(['bench', sys.argv[1], '--runs', '1', '--seconds', '0', '--no-memory']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(files / "int8.tflite")], capture_output=True, check=False)
    assert done.returncode == 0
