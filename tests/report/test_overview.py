"""The page of several bundles: figures of an evaluation, what is measured again, fronts by their definition."""

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qhyvit import card, evaluation, overview
from qhyvit.card import Figure
from qhyvit.overview import OverviewRequest, Shown, charts, render, times_of_cards
from qhyvit.report.front import Chart, Point, _Axis, best, drawn
from tests import _tiny
from tests._bundles import make_bundle
from tests._commands import called
from tests.test_zoo import Cells

NAMES = ("one", "two", "three")
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars")  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Three bundles of one tiny network with their work directories, and labelled images."""
    folder = tmp_path_factory.mktemp("several")
    _tiny.pictures(folder / "train", 12)
    _tiny.pictures(folder / "val", 30, seed=1)
    for name, options in zip(NAMES, (("minmax",), ("percentile",), ("minmax", "--no-integer")), strict=True):
        assert called("build", "--model-py", f"{_tiny.__file__}:make", "--images", folder / "train", "--count", 8,
                      "--method", *options, "--min-agreement", 0, "--out", folder / name) == 0  # fmt: skip
    return folder


@pytest.fixture
def copy(place, tmp_path):
    """The same, to change."""
    shutil.copytree(place, tmp_path / "p")
    return tmp_path / "p"


def bundles(folder):
    return tuple(folder / name for name in NAMES)


def points(page):
    """(name, x, y) of every drawing, drawing by drawing."""
    dot = re.compile(r'data-name="([^"]*)" data-x="([^"]*)" data-y="([^"]*)"')
    drawings = [dot.findall(part) for part in page.split("<svg")[1:]]
    return [[(html.unescape(name), float(x), float(y)) for name, x, y in drawing] for drawing in drawings]


def test_figures_of_the_page_are_those_of_an_evaluation(place, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert called("report", *bundles(place), "--images", place / "val", "--out", out) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = out.read_text()
    head, *rows = Cells(page).rows
    assert [row[0].strip() for row in rows] == list(NAMES)
    (sizes,) = points(page)  # no times are known
    for path, row, point in zip(bundles(place), rows, sizes, strict=True):
        shown = dict(zip(head, row, strict=True))
        found = evaluation.evaluate(path, place / "val", None, None, None, lambda *_: None)
        top1, floating = found.integer.figures["top1_percent"], found.floating.figures["top1_percent"]
        size = (path / "model.tflite").stat().st_size
        assert (shown["task"], shown["figure"], shown["images"]) == ("classify", "top-1 %", "30 of val")
        assert shown["integer"].startswith(f"{top1:.2f} (")
        assert shown["float"].startswith(f"{floating:.2f} (")
        assert shown["agreement"].startswith(f"{found.alike.reading:.2f} (")
        assert shown["MB"] == f"{size / 1e6:.2f}"
        assert shown["proven for"] == "litert"
        assert point == (path.name, pytest.approx(size / 1e6, rel=1e-5), pytest.approx(top1, rel=1e-5))
    off = [json.loads((place / f"{n}.work" / "verify.json").read_text())["census"]["not_delegated"] for n in NAMES]
    assert [dict(zip(head, row, strict=True))["off XNNPACK"] for row in rows] == [str(sum(o.values())) for o in off]
    assert not list(place.glob("*.card.*"))  # the page is all that is written


def test_json_holds_the_same(place, tmp_path, capsys):
    assert called("report", *bundles(place), "--images", place / "val", "--out", tmp_path / "p.html", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    found = evaluation.evaluate(place / "two", place / "val", None, None, None, lambda *_: None)
    (figure, _) = told["bundles"][1]["card"]["accuracy"]["figures"]
    assert figure["integer"] == found.integer.figures["top1_percent"]
    assert told["p50_ms"] == {}


def run(folder, **options):
    lines = []
    found = overview.overview(OverviewRequest(bundles(folder), **options), log=lines.append)
    return found, lines


def test_what_a_card_says_is_not_measured_again(copy, monkeypatch):
    """Of the same images; its times and its licence stay in any case."""
    for name in NAMES:
        request = card.CardRequest(copy / name, copy / "val", bench_seconds=0.01, licence="CC0")
        card.write(card.make(request), copy / f"{name}.card")
    first, lines = run(copy, images=copy / "val")
    assert [line.partition(": figures of ")[0] for line in lines] == list(NAMES)
    measured = []
    monkeypatch.setattr(card.gather.evaluation, "evaluate", lambda *a, **k: measured.append(a[0].name))
    assert run(copy, images=copy / "val")[0] == first
    assert run(copy)[0] == first
    assert measured == []
    monkeypatch.undo()
    labels = copy / "val" / "labels.csv"
    labels.write_text(labels.read_text().replace("0.png,0", "0.png,1"))
    again, lines = run(copy, images=copy / "val")
    assert not any("figures of" in line for line in lines)
    for old, new in zip(first.bundles, again.bundles, strict=True):
        assert new.card.accuracy.key != old.card.accuracy.key
        assert (new.card.speed, new.card.licence) == (old.card.speed, "CC0")
    (where,) = again.times
    assert again.times[where] == {s.name: s.card.speed.p50_ms for s in first.bundles}
    page = render("t", again.bundles, again.times)
    sizes, times = points(page)
    assert [y for _, _, y in sizes] == [y for _, _, y in times]
    assert [x for _, x, _ in times] == [pytest.approx(s.card.speed.p50_ms, rel=1e-5) for s in first.bundles]
    assert where in html.unescape(page)


@pytest.mark.parametrize("how", ["of another bundle", "is no card", "is a card of schema 1"])
def test_a_card_that_is_none_of_the_bundle_is_not_used(copy, how):
    path = copy / "one.card.json"
    if how == "of another bundle":
        card.write(card.make(card.CardRequest(copy / "two", licence="theirs")), copy / "one.card")
    else:
        path.write_text("{" if how == "is no card" else '{"schema_version": 1}')
    found, lines = run(copy)
    assert sum(how in line and line.endswith("not used") for line in lines) == 1
    assert found.bundles[0].card.licence == card.NOT_STATED


def bench_file(path, boards):
    one = {host: {"benches": [{
        "board": {"board": host, "processor": ""}, "settings": {"threads": 1}, "warnings": [],
        "models": [{"model": m, "inference": {"p50": t, "p95": t}} for m, t in times.items()],
    }]} for host, times in boards.items()}  # fmt: skip
    path.write_text(json.dumps(one))
    return path


def test_times_of_a_bench_file_are_drawn_board_by_board(place, tmp_path, capsys):
    boards = {"pi4": {"one": 9.0, "two": 7.5, "x": 1.0}, "pi5": {"one": 3.0, "three": 2.0}}
    bench = bench_file(tmp_path / "b.json", boards)
    found, _ = run(place, bench=bench)
    page = render("t", found.bundles, found.times)
    drawings = points(page)
    drawn_times = [{name: x for name, x, _ in drawing} for drawing in drawings[1:]]
    assert drawn_times == [{"one": 9.0, "two": 7.5}, {"one": 3.0, "three": 2.0}]
    shares = [json.loads((place / n / "manifest.json").read_text())["created_by"]["against_float"]["alike"]["share"]
              for n in NAMES]  # fmt: skip
    assert [y for _, _, y in drawings[0]] == [pytest.approx(100 * s, rel=1e-5) for s in shares]  # without images
    bench_file(bench, {"pi4": {"x": 1.0, "<y>": 2.0}})
    assert called("report", *bundles(place), "--bench", bench, "--out", tmp_path / "p.html") == 2
    assert "holds no time of these bundles; it has x, <y>" in capsys.readouterr().err
    assert not (tmp_path / "p.html").exists()


def shown(name, task="classify", **about):
    """A made-up bundle: ``figure``, ``title``, ``images``, ``size``, ``agreement``."""
    made = card.make(card.CardRequest(about.pop("bundle")))
    figure = Figure(about.get("title", "top1_percent"), about["figure"], None, None, None, None, None)
    right = card.Measured(10, "val", about.get("images", "same"), "", "crop", (figure,), None, None, None, None)
    return Shown(name, "", replace(made, task=task, accuracy=right, size_bytes=about["size"]))


def test_only_figures_that_compare_are_drawn_together(tmp_path):
    bundle = make_bundle(tmp_path / "b", "classify")
    of = [
        shown("a", figure=70.0, size=10, bundle=bundle), shown("b", figure=80.0, size=20, bundle=bundle),
        shown("c", figure=80.0, size=20, images="others", bundle=bundle),
        shown("d", "segment", figure=80.0, size=20, title="miou_percent", bundle=bundle),
        shown("e", "regress", figure=0.5, size=20, title="mae", bundle=bundle),
        shown("f", "regress", figure=0.4, size=10, title="mae", bundle=bundle),
    ]  # fmt: skip
    first, second = charts(of, {})
    assert (first.title, [p.name for p in first.points], first.less) == ("top-1 % against size", ["a", "b"], False)
    assert (second.title, [p.name for p in second.points], second.less) == ("mean error against size", ["e", "f"], True)
    assert [p.name for p in best(second.points, less=True)] == ["f"]
    assert "come from different images" in render("t", of, {})
    assert "come from different images" not in render("t", of[:2], {})
    assert charts(of[2:4], {}) == []
    assert "<svg" not in render("t", of[2:4], {})


@pytest.mark.parametrize("less", [False, True])
def test_the_front_is_what_no_point_beats(less):
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = [Point(str(i), *map(float, rng.integers(0, 6, 2))) for i in range(7)]

        def beats(a, b):
            good, worse = (a.y, b.y) if not less else (-a.y, -b.y)
            return a.x <= b.x and good >= worse and (a.x < b.x or good > worse)

        wanted = {p.name for p in found if not any(beats(q, p) for q in found)}
        assert {p.name for p in best(found, less=less)} == wanted


def test_axes_have_round_marks_inside():
    for low, high in ((79.2, 79.7), (0.0081, 0.0097), (5.0, 5.0), (-3.0, 1e4), (0.0, 0.0), (61.5, 80.9)):
        axis = _Axis.of([low, high], 0.0, 100.0)
        marks = axis.marks
        assert 2 <= len(marks) <= 7
        for value, text in marks:
            assert axis.low <= value <= axis.high
            assert float(text) == pytest.approx(value, abs=1e-12)
        assert 0 < axis.at(low) <= axis.at(high) < 100


def test_names_hide_no_dot():
    """Six names around as many dots that lie in a heap."""
    found = tuple(Point(f"mobilevitv2_{i}-int8", 1 + 0.3 * i, 70 + i % 3) for i in range(6))
    drawing = str(drawn(Chart("t", "MB", "%", found)))
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([^"]*)" cy="([^"]*)"', drawing)]
    names = re.findall(r'<text class="name" x="([^"]*)" y="([^"]*)" text-anchor="(\w+)">([^<]*)<', drawing)
    assert len(names) == len(dots) == 6
    for x, y, anchor, text in names:
        width = 5.5 * len(text)
        left = float(x) - {"start": 0, "middle": width / 2, "end": width}[anchor]
        assert not any(left < a < left + width and float(y) - 8 < b < float(y) for a, b in dots)
        assert left >= 0
        assert left + width <= 400


def test_bundles_of_any_task_have_a_page(tmp_path):
    of = [make_bundle(tmp_path / task, task) for task in ("classify", "embed", "segment", "regress")]
    assert called("report", *of, "--out", tmp_path / "p.html") == 0
    rows = Cells((tmp_path / "p.html").read_text()).rows
    assert [row[1] for row in rows] == ["task", "classify", "embed", "segment", "regress"]


def test_nothing_is_fetched_and_names_are_escaped(tmp_path):
    evil = "<script>alert(1)<!--"
    of = [make_bundle(tmp_path / evil, "classify"), make_bundle(tmp_path / "b", "classify")]
    bench = bench_file(tmp_path / "b.json", {"<b>": {evil: 1.0, "b": 2.0}})
    assert called("report", *of, "--bench", bench, "--out", tmp_path / "p.html") == 0
    page = (tmp_path / "p.html").read_text()
    assert evil not in page
    assert "<script" not in page
    assert not re.search(r"(https?:)?//[a-z]|url\(|@import|<link|src=", page)
    assert html.escape(evil) in page
    assert "prefers-color-scheme: dark" in page
    assert called("report", *of, "--bench", bench, "--out", tmp_path / "q.html") == 0
    assert (tmp_path / "q.html").read_text() == page


@pytest.mark.parametrize(("words", "said"), [
    ((), "name it with --out"), (("--out", "p.html", "--work", "w"), "--work is of one bundle"),
    (("--out", "p.html", "--count", "5"), "--count is of one bundle"),
    (("--out", "p.html", "--float", "f.tflite"), "--float is of one bundle"),
    (("--out", "p.html", "one"), "is given twice"), (("--out", "p.html", "nowhere"), "nowhere"),
    (("--out", "p.html", "--images", "nowhere"), "nowhere does not exist"),
    (("--out", "p.html", "--images", "train"), "were used to calibrate"),
    (("--out", "p.html", "--bench", "train"), "train"), (("--out", "train"), "train is a link, a folder"),
])  # fmt: skip
def test_a_mistake_is_one_line_and_nothing_is_written(place, monkeypatch, capsys, words, said):
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    assert called("report", *NAMES, *words) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "error:" in line]
    assert (out, len(lines)) == ("", 1)
    assert said in lines[0]
    assert sorted(place.iterdir()) == before


def test_folders_of_one_name_are_told_apart_by_their_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for parent in ("x", "y"):
        (tmp_path / parent).mkdir()
        make_bundle(tmp_path / parent / "b", "classify")
    found = overview.overview(OverviewRequest((Path("x/b"), Path("y/b"))))
    assert [s.name for s in found.bundles] == ["x/b", "y/b"]
    assert times_of_cards(found.bundles) == {}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: the page is not drawn")
@pytest.mark.parametrize(("width", "dark"), [(390, True), (1200, False)])
def test_a_browser_draws_the_page_without_scrolling_sideways(place, tmp_path, width, dark):
    found, _ = run(place, images=place / "val")
    named = [replace(s, name=f"{s.name}-with-a-name-that-is-very-long-indeed") for s in found.bundles]
    times = {"a board": {s.name: float(i + 1) for i, s in enumerate(named)}}
    page, shot = html.escape(render("Three bundles", named, times)), tmp_path / "r.png"
    script = 'onload = () => document.title = frames[0].document.documentElement.scrollWidth'
    frame = f'<body style="margin:0"><iframe style="border:0" width={width} height=900 srcdoc="{page}"></iframe>'
    (tmp_path / "f.html").write_text(f"{frame}<script>{script}</script>")  # no window is as narrow as a phone
    theme = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"] if dark else []

    def browser(*words):
        with tempfile.TemporaryDirectory() as profile:
            command = [str(CHROMIUM), *QUIET, *theme, f"--user-data-dir={profile}", "--window-size=1200,900", *words]
            return subprocess.run([*command, (tmp_path / "f.html").as_uri()], check=True, capture_output=True,
                                  timeout=120).stdout.decode()  # fmt: skip

    assert f"<title>{width}</title>" in browser("--dump-dom")
    browser(f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("L"), np.float64)[:900, :width]
    assert pixels[2, 2] < 64 if dark else pixels[2, 2] > 192
    assert pixels.std() > 10
