"""What every output, or value, keeps of float: cards, comparisons, pages and sweeps say what an evaluation says."""

import csv
import json
import re

import pytest

from qhyvit import card, evaluation
from qhyvit.report import compare
from qhyvit.report.gather import gather as report
from qhyvit.report.request import Request
from qhyvit.sweep import gather, tasks
from qhyvit.sweep.matrix import matrix
from qhyvit.sweep.spec import read_spec
from qhyvit.tasks import task
from tests import _tiny
from tests.test_card import called
from tests.test_zoo import Cells

BUNDLES = pytest.mark.parametrize("name", ["two", "values"])
NAMES = ("red", "green", "blue", "none")
PROCESS = {"cpu_seconds": 1, "seconds": 1, "peak_mib": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Bundles of a network with two outputs and of one that gives four named values; images with labels of these."""
    folder = tmp_path_factory.mktemp("each")
    _tiny.pictures(folder / "train", 12)
    _tiny.pictures(folder / "val", 30, seed=1)
    rows = [f"{i}.png,{i % 3},{i % 5},{i % 7},{i}" for i in range(30)]
    (folder / "val" / "labels.csv").write_text("\n".join([f"file,{','.join(NAMES)}", *rows]) + "\n")
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    for name, *options in (("two:two",), ("make:values", "--task", "regress", "--labels", folder / "names.txt")):
        function, _, out = name.partition(":")
        assert called("build", "--model-py", f"{_tiny.__file__}:{function}", "--images", folder / "train", "--count", 8,
                      "--method", "minmax", "--min-agreement", 0, *options, "--out", folder / out) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def found(place):
    """What an evaluation says of each."""
    return {name: evaluation.evaluate(place / name, place / "val", None, None, None, lambda *_: None)
            for name in ("two", "values")}  # fmt: skip


def words(outcome):
    """How a reading says whose it is."""
    return worst_of(outcome, outcome.each)


def worst_of(outcome, each):
    return f"(the worst of {len(each)} {outcome.task.part}s: {next(iter(each))})"


def test_the_outcomes_are_worth_a_comparison(found):
    assert set(found["two"].each) == {"head", "features"}
    assert set(found["values"].each) == set(NAMES)
    assert all(len(set(outcome.each.values())) == len(outcome.each) for outcome in found.values())


@BUNDLES
def test_a_card_has_every_output(place, found, tmp_path, name):
    outcome = found[name]
    assert called("card", place / name, "--images", place / "val", "--out", tmp_path / "c") == 0
    kept = card.read(tmp_path / "c.json").accuracy
    assert [*kept.each.items()] == [*outcome.each.items()]
    text, title = (tmp_path / "c.md").read_text(), outcome.task.reading
    assert f"| {title} {words(outcome)} | {evaluation.shown(title, kept.agreement.integer)} |" in text
    rows = [f"| {output} | {evaluation.shown(title, reading)} |" for output, reading in outcome.each.items()]
    table = [f"| {outcome.task.part}, the worst first | {title} |", "| --- | --- |", *rows]
    assert "\n".join(["", *table, ""]) in text


def test_a_card_shows_the_worst_of_many_and_one_from_before_still_loads(place, tmp_path):
    request = card.CardRequest(place / "two", place / "val")
    made = card.make(request).to_json()
    made["accuracy"]["each"] = {f"output {i}": float(i) for i in range(100)}
    (tmp_path / "c.json").write_text(json.dumps(made))
    text = card.markdown(card.read(tmp_path / "c.json"))
    assert "(the worst of 100 outputs: output 0)" in text
    assert [f"| output {i} | {i}.00 |" in text for i in range(100)] == [i < 20 for i in range(100)]
    del made["accuracy"]["each"]
    (tmp_path / "c.json").write_text(json.dumps(made))
    assert card.read(tmp_path / "c.json").accuracy.each == {}
    assert "the worst" not in card.markdown(card.read(tmp_path / "c.json"))


@BUNDLES
def test_a_comparison_has_every_output(place, found, capfd, name):
    outcome = found[name]
    assert called("compare", place / name, place / name, "--images", place / "val", "--json") == 0
    side = json.loads(capfd.readouterr().out)["sides"][1]
    assert side["kept_of_float"] == pytest.approx(outcome.alike.reading, rel=1e-5)
    assert side["kept_of_float_each"] == pytest.approx(outcome.each, rel=1e-5)
    verified = side["float_agreement_percent_each"]
    assert {*verified} == ({*outcome.each} if name == "two" else {f"value {i}" for i in range(4)})
    assert [*verified.values()] == sorted(verified.values())
    assert min(verified.values()) == pytest.approx(side["float_agreement_percent"], rel=1e-5)
    both = compare.compare(place / name, place / name, place / "val", None, None, None, lambda *_: None)
    rows = {row[0]: row[1:] for row in compare.tables(both)[0][2]}
    assert rows["kept_of_float"] == (f"{side['kept_of_float']} {words(outcome)}",) * 2
    figures = {} if outcome.integer is None else outcome.integer.figures
    assert side["figures"] == pytest.approx(dict(figures), rel=1e-4)
    assert [*figures] == [key for key in rows if key in figures]
    assert bool(figures) == (name == "values")
    worst = f"{side['float_agreement_percent']} {worst_of(outcome, verified)}"
    assert rows["float_agreement_percent"] == (worst, worst)
    assert not any(key.endswith("_each") for key in rows)


def test_what_may_be_as_long_as_an_output_is_not_in_the_manifest(place):
    verdict = json.loads((place / "values.work" / "verify.json").read_text())["against_float"]
    manifest = json.loads((place / "values" / "manifest.json").read_text())["created_by"]["against_float"]
    assert verdict.pop("each")
    assert manifest == verdict


def test_a_page_of_several_bundles_says_whose_figure_it_is(place, found, tmp_path, capsys):
    out = tmp_path / "p.html"
    asked = "report", place / "two", place / "values", "--images", place / "val", "--out", out
    assert called(*asked, "--json") == 0
    told = json.loads(capsys.readouterr().out)["bundles"]
    assert [b["card"]["accuracy"]["each"] for b in told] == [dict(outcome.each) for outcome in found.values()]
    head, *rows = Cells(out.read_text()).rows
    for row, outcome in zip(rows, found.values(), strict=True):
        cell = dict(zip(head, row, strict=True))["agreement"]
        assert cell.startswith(evaluation.shown(outcome.task.reading, outcome.alike.reading))
        assert cell.endswith(words(outcome))


def test_a_report_has_every_value_by_its_name(place, found):
    told = report(Request(place / "values", images=place / "val")).to_json()["examined"]["evaluation"]["alike"]["each"]
    assert [*told] == [*found["values"].each]


@BUNDLES
def test_a_sweep_has_every_output(place, found, tmp_path, name):
    """The jobs of a sweep by themselves, on what the build has exported."""
    more = {"two": "", "values": f", task = 'regress', label_names = '{place / 'names.txt'}'"}[name]
    function = {"two": "two", "values": "make"}[name]
    (tmp_path / "s.toml").write_text(
        f"models = [{{name = '{_tiny.__file__}:{function}'{more}}}]\nmethods = ['minmax']\n"
        f"[calibration]\nimages = '{place / 'train'}'\ncount = 8\n[evaluation]\nimages = '{place / 'val'}'\n"
    )
    (build,) = matrix(read_spec(tmp_path / "s.toml"), tmp_path / "out").builds
    asked, export, floats = build.job.arguments, str(place / f"{name}.work"), str(tmp_path / "float.npy")
    tasks.reference(export, floats, asked["evaluation"], asked["names"])
    value = tasks.build(str(tmp_path / "w"), export, floats, asked["config"], asked["evaluation"], asked["names"])
    row = gather.row(build, {"value": value, "process": PROCESS})
    assert [*row["each"]] == [*found[name].each]
    assert row["each"] == pytest.approx(dict(found[name].each), abs=1e-4)
    columns, lines = gather.short([row])
    title = task(row["task"]).reading
    assert columns[-1] == title
    assert lines[0][-1] == f"{evaluation.shown(title, row['agreement'])} {words(found[name])}"
    gather.write([row], tmp_path)
    with (tmp_path / "results.csv").open() as stream:
        (cells,) = csv.DictReader(stream)
    assert json.loads(cells["each"]) == row["each"]


def test_a_single_output_leaves_the_cell_of_a_sweep_empty(tmp_path):
    row = {"model": "m", "method": "minmax", "bits": 8, "seed": 0, "target": "litert", "profile": "integer",
           "task": "classify", "agreement": 99.5, "each": {}}  # fmt: skip
    gather.write([row], tmp_path)
    assert re.search(r",99\.5,$", (tmp_path / "results.csv").read_text().strip())
    assert gather.short([row])[1][0][-1] == "99.50"
