"""Time of every variant: rows from samples that are known, and what the exit says."""

import pytest

from benchmarks import variants
from benchmarks._files import read_rows


def found(*milliseconds):
    """A bench of three files whose every run takes as long."""
    models = [{"samples_ms": {"inference": [ms] * 5}, "inference": {"p50": ms}, "runtime": "r"} for ms in milliseconds]
    return {"models": models, "board": {"processor": "p"}}


@pytest.fixture
def made(monkeypatch):
    """No file is made; the variants for which one would have been."""
    prepared = []

    def own_files(variant, *rest):
        prepared.append(variant)
        return dict.fromkeys(variants.OWN)

    monkeypatch.setattr(variants, "own_files", own_files)
    monkeypatch.setattr(variants, "images_into", lambda folder: folder)
    return prepared


def run(monkeypatch, tmp_path, *options):
    words = ["variants", "--work", str(tmp_path), "--out", str(tmp_path / "v.csv"), *options]
    monkeypatch.setattr("sys.argv", words)
    variants.main()


def test_a_row_holds_both_profiles_over_float(monkeypatch, tmp_path, made):
    monkeypatch.setattr(variants.bench, "bench", lambda *_, **__: found(8.0, 4.0, 2.0))
    run(monkeypatch, tmp_path, "--variants", "mobilevit_xs")
    (row,) = read_rows(tmp_path / "v.csv")
    assert [row[k] for k in ("own_float_ms", "integer", "cpu")] == ["8.00", "0.500", "0.250"]
    run(monkeypatch, tmp_path, "--variants", "mobilevit_xs")  # is there
    assert made == ["mobilevit_xs"]


def test_a_profile_slower_than_float_ends_with_an_error(monkeypatch, tmp_path, made):
    monkeypatch.setattr(variants.bench, "bench", lambda *_, **__: found(4.0, 4.1, 2.0))
    with pytest.raises(SystemExit, match="mobilevit_s integer"):
        run(monkeypatch, tmp_path, "--variants", "mobilevit_s")


def test_preparing_measures_nothing(monkeypatch, tmp_path, made):
    monkeypatch.setattr(variants.bench, "bench", lambda *_, **__: pytest.fail("measured"))
    run(monkeypatch, tmp_path, "--prepare", "--variants", "mobilevit_s,mobilevit_xs")
    assert made == ["mobilevit_s", "mobilevit_xs"]
