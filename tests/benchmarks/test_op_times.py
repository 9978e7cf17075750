"""Times by kind of op: from a profile that is known, and of a file that runs."""

from dataclasses import asdict

import pytest

from benchmarks import op_times
from qhyvit.tflite.serialize import serialize
from qhyvit_device.profile import profile


def measured(*nodes, free=0.0, overhead=0.0):
    """A profile whose nodes write one tensor each: (op, type that it writes, microseconds)."""
    events = [{"name": op, "kernel": "builtin", "us": us} for op, _, us in nodes]
    tensors = {"0": ["int8", [1]], **{str(i + 1): [kind, [1]] for i, (_, kind, _) in enumerate(nodes)}}
    graph = {"nodes": [[op, [i], [i + 1]] for i, (op, _, _) in enumerate(nodes)], "tensors": tensors}
    extra = [{"name": "Copy (NC, X8)", "kernel": "xnnpack", "us": free}] if free else []
    return {"graph": graph, "events": events + extra, "overhead_us": overhead}


@pytest.fixture
def plain(monkeypatch):
    """Every node has the event with its number."""
    monkeypatch.setattr(op_times, "own_events", lambda found: list(range(len(found["graph"]["nodes"]))))


def test_the_kinds_add_up_to_the_whole(plain):
    found = measured(
        ("CONV_2D", "int8", 1000.0), ("BATCH_MATMUL", "int8", 200.0), ("DEQUANTIZE", "float32", 30.0),
        ("SOFTMAX", "float32", 40.0), ("MUL", "float32", 50.0), ("ADD", "int8", 60.0), ("RESHAPE", "int8", 7.0),
        free=300.0, overhead=80.0,
    )  # fmt: skip
    kinds = op_times.by_kind(found)
    assert kinds == pytest.approx({
        "layers": 1.0, "products": 0.2, "borders": 0.03, "softmax": 0.04, "float": 0.05, "int8": 0.06, "copies": 0.007,
        "between": 0.38,
    })  # fmt: skip


def test_the_floor_is_the_layers_time_over_the_stock_float_files(plain, monkeypatch, tmp_path):
    times = {"stock_float": 4000.0, "own_float": 3000.0, "stock_int8": 2000.0, "integer": 1000.0, "cpu": 500.0}
    monkeypatch.setattr(op_times, "asdict", lambda found: found)
    monkeypatch.setattr(
        op_times, "profile",
        lambda path, *_: measured(("CONV_2D", "int8", times[path.stem]), ("ADD", "int8", 1000.0)),
    )  # fmt: skip
    rows = {r["file"]: r for r in op_times.rows_of("m", tmp_path, 1)}
    assert rows["cpu"]["floor"] == "0.100"  # 500 of 5000
    assert rows["cpu"]["to_float"] == "0.300"
    assert rows["stock float"]["to_float"] == "1.000"


def test_a_float_file_has_float_ops_and_no_int8_ones(small_v1, tmp_path):
    """Types have the names that the device stage gives them: float ops were counted as int8 once."""
    path = tmp_path / "m.tflite"
    path.write_bytes(serialize(small_v1.graph))
    measured = asdict(profile(path, runs=3))
    kinds = op_times.by_kind(measured)
    assert kinds["int8"] == kinds["borders"] == 0.0
    assert kinds["layers"] > 0.0 < kinds["float"]
    whole = sum(e["us"] for e in measured["events"]) + measured["overhead_us"]
    assert sum(kinds.values()) == pytest.approx(whole / 1e3)
