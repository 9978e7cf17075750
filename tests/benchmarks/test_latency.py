"""Latency and instruction counts: what is written from samples and counters that are known."""

import csv
import subprocess
import sys
from types import SimpleNamespace

import pytest

from benchmarks import instructions, latency
from qhyvit.tflite.serialize import serialize
from qhyvit_device import bench


@pytest.fixture(scope="module")
def rows(small_v1, tmp_path_factory):
    """Of the same model in the place of all five files."""
    data, folder = serialize(small_v1.graph), tmp_path_factory.mktemp("latency")
    paths = {name: folder / latency.file_name(name) for name in latency.FILES}
    for path in paths.values():
        path.write_bytes(data)
    return latency._rows("model", paths, bench.BenchSettings(runs=3, seconds=0.0, warmup=0))[0]


def test_rows_compare_every_file_with_stock_float_and_stock_int8(rows):
    assert [r["file"] for r in rows] == list(latency.FILES)
    assert rows[0]["to_float"] == "1.000"
    assert rows[1]["to_stock_int8"] == "1.000"
    for row in rows:
        assert float(row["to_float_low"]) <= float(row["to_float"]) <= float(row["to_float_high"])
        assert row["partitions"] == 1
        assert row["runs"] == 3


def test_the_picture_shows_what_the_table_holds(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "RESULTS", tmp_path)
    with (tmp_path / "latency.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    latency.draw(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_what_loading_costs_is_no_part_of_an_inference():
    few, many = (f"cpu 0 insns: 7\ntotal insns: {5000 + n * 100}\n" for n in (instructions.FEW, instructions.MANY))
    assert instructions.per_inference(few, many) == 100


def test_stock_files_are_made_where_nothing_else_has_imported_timm():
    """Mobile-Former's source does not; beside a CPU torch a plain import of timm dies."""
    code = "from benchmarks.stock import convertible\nwith convertible():\n    print('converts')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "converts\n", done.stderr[-500:]


@pytest.mark.parametrize(("kind", "integer"), [("cpu", False), ("integer", True)])
def test_a_file_is_made_once_for_each_processor(tmp_path, monkeypatch, kind, integer):
    asked = []

    def calibrated(model, folder, images, weights, target):
        asked.append((model, folder.name, target.name, target.integer))
        return SimpleNamespace(read=lambda name: b"model")

    monkeypatch.setattr(instructions, "calibrated", calibrated)
    monkeypatch.setattr(instructions, "images_into", lambda folder: folder)
    for _ in range(2):
        path = instructions._file(tmp_path, "m", f"{kind} for it", "cortex-a72", None)
    assert path.read_bytes() == b"model"
    assert asked == [("m", f"{kind}-cortex-a72", "litert-cortex-a72", integer)]
    assert instructions._file(tmp_path, "m", "own float", "cortex-a72", None) == tmp_path / "m" / "own_float.tflite"
