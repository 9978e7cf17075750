"""Latency and instruction counts: what is written from samples and counters that are known."""

import csv

import pytest

from benchmarks import instructions, latency
from qhyvit.tflite.write import write_float
from qhyvit_device import bench


@pytest.fixture(scope="module")
def rows(small_v1, tmp_path_factory):
    """Of the same model in the place of all five files."""
    data, folder = write_float(small_v1.graph), tmp_path_factory.mktemp("latency")
    paths = {name: folder / latency.file_name(name) for name in latency.FILES}
    for path in paths.values():
        path.write_bytes(data)
    return latency._rows("model", paths, bench.Settings(runs=3, seconds=0.0, warmup=0))[0]


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
