"""Rows of timm's networks: what is refused is a row with its reason, what fails is none."""

import pytest

from benchmarks import own_models
from benchmarks._files import read_rows
from qhyvit import stages
from qhyvit.errors import GraphError
from qhyvit.models.shared.timm_models import import_timm


def test_all_names_are_timms_and_enough():
    timm = import_timm()
    assert all(timm.is_model(name) for name in own_models.MODELS)
    assert sum(map(len, own_models.MODELS.values())) >= 45


def test_a_refusal_is_a_row_of_one_line(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise GraphError("2 x CUMSUM\n(first in stem)")

    monkeypatch.setattr(stages, "export", refuse)
    row = own_models.one("starnet_s1", 128, tmp_path)
    assert (row["status"], row["reason"]) == ("refused", "2 x CUMSUM (first in stem)")


def test_other_errors_are_no_refusals(monkeypatch, tmp_path):
    monkeypatch.setattr(stages, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        own_models.one("starnet_s1", 128, tmp_path)


def test_only_what_is_missing_is_made(monkeypatch, tmp_path):
    made = []

    def run_jobs(_, jobs, workers, take):
        made.append([job.label for job in jobs])
        for job in jobs:
            take({**job.key, "status": "built"})
        return True

    monkeypatch.setattr(own_models, "run_jobs", run_jobs)
    for names in ("mobilevitv2_050", "mobilevitv2_050,starnet_s1"):
        monkeypatch.setattr("sys.argv", ["own_models", "--models", names, "--out", str(tmp_path / "o.csv")])
        with pytest.raises(SystemExit, match="0"):
            own_models.main()
    assert made == [["mobilevitv2_050 192", "mobilevitv2_050 384"], ["starnet_s1 128"]]
    assert [r["input"] for r in read_rows(tmp_path / "o.csv")] == ["192", "384", "128"]


def test_a_name_that_is_not_in_the_table_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["own_models", "--models", "resnet"])
    with pytest.raises(SystemExit, match="2"):
        own_models.main()
    assert "not in the table: resnet" in capsys.readouterr().err
