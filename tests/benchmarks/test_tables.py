"""Documents show what the result files hold, and results replace rows by key."""

import csv

import pytest

from benchmarks._files import COMPARED, have_rows, write_rows
from benchmarks.tables import DOCUMENTS, ROOT, filled
from qhyvit.errors import InputError


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


def row(**changed):
    given = {
        "model": COMPARED, "table": "ablation", "row": "scale", "bits": 8, "seed": 0, "counted": "deployed integer",
        "calibration_images": 32, "top1_percent": 70, "agreement_percent": 80, "sqnr_db": 20, "set": "all",
    }  # fmt: skip
    return {**given, **changed}


DOCUMENT = "<!-- table ablation -->\nold\n<!-- end -->\n"


def test_a_table_says_its_commit_and_takes_all_images_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks._files.commit", lambda: "abc")
    rows = [row(seed=0), row(seed=1, top1_percent=71), row(seed=0, set="a part", top1_percent=10)]
    write_rows(tmp_path / "accuracy.csv", rows, ("seed", "set"))
    found = filled(DOCUMENT, tmp_path)
    assert "70.50 (70.0 to 71.0)" in found
    assert "\nCommit abc, " in found
    assert found.startswith("<!-- table ablation -->\n|")
    assert filled(found, tmp_path) == found


def test_a_table_of_two_commits_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "accuracy.csv"
    for number, commit in enumerate(("abc", "def")):
        monkeypatch.setattr("benchmarks._files.commit", lambda said=commit: said)
        write_rows(path, [row(seed=number)], ("seed", "set"))
    with pytest.raises(InputError, match=r"table ablation: rows of several commits: abc .*def"):
        filled(DOCUMENT, tmp_path)
    write_rows(path, [row(seed=0, table="methods", row="qhyvit")], ("seed", "set"))  # another table's may be of another
    assert "Commit def" in filled(DOCUMENT, tmp_path)


def test_rows_of_another_commit_are_made_again(tmp_path, monkeypatch):
    path = tmp_path / "r.csv"
    monkeypatch.setattr("benchmarks._files.commit", lambda: "abc")
    write_rows(path, [{"row": "a"}], ("row",))
    assert have_rows(path, {"row": "a"})
    monkeypatch.setattr("benchmarks._files.commit", lambda: "def")
    assert not have_rows(path, {"row": "a"})


def test_bits_and_stock_show_every_set_and_all_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks._files.commit", lambda: "abc")
    base = {"table": "bits", "row": "qhyvit", "calibration_images": 128, "float_top1_percent": 80,
            "size_bytes": 2_500_000, "ops": 9, "float_tensors": 0, "images": 950}  # fmt: skip
    rows = [
        row(**base, bits=bits, seed=seed, set=named, top1_percent=79 + seed)
        for bits in ("8", "w4a8 2.1MB") for seed in (0, 1) for named in ("one", "all")
    ]  # fmt: skip
    write_rows(tmp_path / "accuracy.csv", rows, ("bits", "seed", "set"))
    found = filled(DOCUMENT.replace("ablation", "bits"), tmp_path)
    means = "79.50 (79.0 to 80.0) | 80.00 (80.0 to 80.0) | 0.50 (0.00 to 1.00)"
    assert f"| W8A8 | 2.50 | 2 | one, 950 | 80 | {means} |" in found
    assert "| W4A8 2.1 MB | 2.50 | 2 | all, 950 |" in found
    stock = {"model": COMPARED, "export": "stock export", "recipe": "static_wi8_ai8", "top1_percent": 37,
             "agreement_percent": 40, "float_tensors": 36, "ops": 677, "size_bytes": 3_700_000}  # fmt: skip
    write_rows(tmp_path / "stock.csv", [stock], ("recipe",))
    found = filled(DOCUMENT.replace("ablation", "stock"), tmp_path)
    assert "| ai-edge-quantizer static int8 |  | 37.00 | 40.00 | 36 | 677 | 3.70 |" in found
    assert "| **qhyvit, fully integer** | 2 | 79.50 (79.0 to 80.0) | 80.00 (80.0 to 80.0) | 0 | 9 | 2.50 |" in found
