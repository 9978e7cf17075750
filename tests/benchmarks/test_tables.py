"""Documents show what the result files hold, and results replace rows by key."""

import csv

from benchmarks._files import write_rows
from benchmarks.tables import DOCUMENTS, ROOT, filled


def test_tables_are_up_to_date():
    for name in DOCUMENTS:
        text = (ROOT / name).read_text()
        assert filled(text) == text, f"{name}: run python -m benchmarks.tables"


def test_a_row_replaces_the_one_with_its_key(tmp_path):
    path = tmp_path / "deep" / "r.csv"
    write_rows(path, [{"model": "a", "seed": 0, "top1": 1}, {"model": "b", "seed": 0, "top1": 2}], ("model", "seed"))
    write_rows(path, [{"model": "a", "seed": 0, "top1": 3, "note": "x, y"}], ("model", "seed"))
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(r["model"], r["top1"], r["note"]) for r in rows} == {("a", "3", "x, y"), ("b", "2", "")}
