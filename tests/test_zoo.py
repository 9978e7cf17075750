"""`qhyvit zoo`: bundles, cards and a page; what is kept, what is made again, what fails."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qhyvit import zoo
from qhyvit.errors import UsageError
from tests import _tiny
from tests._commands import called

TOML = """
title = "Birds & <others>"
[defaults.data]
images = "train"
count = 8
[defaults.method]
name = "minmax"
[defaults.output]
min_agreement = 0.0
[defaults.card]
images = "val"
licence = "CC0"
[[models]]
name = "one"
model = { name = "net.py:make" }
[[models]]
name = "two"
model = { name = "net.py:make" }
method = { name = "percentile" }
card = { licence = "a <b>", bench = 0.1 }
"""


def written(folder, text=TOML):
    (folder / "zoo.toml").write_text(text)
    return folder / "zoo.toml"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "net.py").write_text(Path(_tiny.__file__).read_text())
    _tiny.pictures(folder / "train", 12)
    _tiny.pictures(folder / "val", 20, seed=1)
    assert called("zoo", written(folder), "--out", folder / "out") == 0
    return folder


def run(place, text=TOML, **options):
    lines = []
    found = zoo.make(written(place, text), place / "out", log=lines.append, **options)
    return found, lines


def stamps(place):
    return {p.name: p.stat().st_mtime_ns for p in (place / "out").iterdir() if p.name != "index.html"}


class Cells(HTMLParser):
    """Texts of a page's table, row by row, and its links."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.links, self.names, self._open = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True
            self.names += [value for key, value in attrs if key == "data-name"]
        if tag == "a":
            self.links.append(dict(attrs)["href"])

    def handle_endtag(self, tag):
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data):
        if self._open:
            self.rows[-1][-1] += data


def test_a_zoo_has_bundles_cards_and_a_page_of_their_figures(place):
    out = place / "out"
    cards = {name: json.loads((out / f"{name}.card.json").read_text()) for name in ("one", "two")}
    assert [cards[name]["licence"] for name in cards] == ["CC0", "a <b>"]
    assert [cards[name]["made"]["method"] for name in cards] == ["minmax", "percentile"]
    assert cards["one"]["speed"] is None
    assert cards["two"]["speed"]["runs"] >= 20
    page = (out / "index.html").read_text()
    table = Cells(page)
    head, *rows = table.rows
    assert [row[0] for row in rows] == ["one", "two"]
    for row, about in zip(rows, cards.values(), strict=True):
        found = dict(zip(head, row, strict=True))
        figure = about["accuracy"]["figures"][0]
        assert found["integer"] == f"{figure['integer']:.2f} ({figure['low']:.1f} to {figure['high']:.1f})"
        assert found["images"] == "20 of val"
        assert found["licence"] == about["licence"]
        assert found["MB"] == f"{about['size_bytes'] / 1e6:.2f}"
    assert all((out / link).is_file() for link in table.links)
    assert len(table.links) == 2


def test_the_page_fetches_nothing_and_suits_phones_and_dark_rooms(place):
    page = (place / "out" / "index.html").read_text()
    assert not re.search(r"(src|href)=.https?:|@import|url\(", page)
    assert "<title>Birds &amp; &lt;others&gt;</title>" in page
    assert 'content="width=device-width, initial-scale=1"' in page
    assert "prefers-color-scheme: dark" in page
    table = Cells(page)
    assert set(table.names) == set(table.rows[0][1:])  # on a phone each value has its column's name before it


def test_a_second_call_keeps_all_and_says_so(place):
    run(place)
    before = stamps(place)
    _, lines = run(place)
    kept = [f"{name}: {what} unchanged, kept" for name in ("one", "two") for what in ("bundle", "card")]
    assert lines == kept
    assert stamps(place) == before


@pytest.mark.parametrize("change", ["licence", "count", "network", "labels", "card is gone", "bundle is gone"])
def test_what_has_changed_is_made_again_and_nothing_else(place, change):
    run(place)
    text = TOML
    if change == "licence":
        text = TOML.replace('"CC0"', '"MIT"')
    elif change == "count":
        text = TOML.replace("[[models]]\nname = \"one\"", "[[models]]\nname = \"one\"\ndata = { count = 9 }")
    elif change == "network":
        (place / "net.py").write_text((place / "net.py").read_text().replace("weight *= 4", "weight *= 3"))
    elif change == "labels":
        labels = place / "val" / "labels.csv"
        labels.write_text(labels.read_text().replace("0.png,0", "0.png,1"))
    elif change == "card is gone":
        (place / "out" / "one.card.md").unlink()
    else:
        (place / "out" / "one" / "model.tflite").unlink()
    _, lines = run(place, text)
    kept = {line.partition(" unchanged")[0] for line in lines if line.endswith("kept") and ": " in line}
    expected = {
        "licence": {"one: bundle", "two: bundle", "two: card"}, "count": {"two: bundle", "two: card"}, "network": set(),
        "labels": {"one: bundle", "two: bundle"}, "card is gone": {"one: bundle", "two: bundle", "two: card"},
        "bundle is gone": {"one: card", "two: bundle", "two: card"},  # the new one is the same
    }[change]  # fmt: skip
    assert {name for name in kept if name.partition(": ")[2] in ("bundle", "card")} == expected
    assert (place / "out" / "one.card.md").is_file()
    assert (place / "out" / "one" / "model.tflite").is_file()


def test_force_makes_all_again(place):
    run(place)
    _, lines = run(place, force=True)
    assert not any("kept" in line for line in lines)


def test_what_fails_is_on_the_page_and_the_others_are_made(place, capsys):
    text = TOML.replace('"two"\nmodel = { name = "net.py:make" }', '"two"\nmodel = { name = "gone.py:make" }')
    assert called("zoo", written(place, text), "--out", place / "other") == 1
    assert "1 of 2 models failed: two" in capsys.readouterr().err
    rows = Cells((place / "other" / "index.html").read_text()).rows
    assert rows[1][0] == "one"
    assert (rows[2][0], "gone.py" in rows[2][1]) == ("two", True)
    assert (place / "other" / "one.card.json").is_file()


@pytest.mark.parametrize(("text", "said"), [
    ("", r"zoo\.toml needs \[\[models\]\]"), ("models = []", r"needs \[\[models\]\]"),
    ("x = 1\n" + TOML, "has no option 'x'"), ("[[models]]\nmodel = {}", "model 1 needs a name"),
    ("[[models]]\nname = '../up'", "is no name of a folder"), ("[[models]]\nname = 'zoo.json'", "is no name of a fo"),
    ("[[models]]\nname = 'a'\nnet = {}", "has no table 'net'"), ("[[models]]\nname = 'a'\nmodel = 'x'", "no table 'm"),
    (TOML.replace('"two"', '"one"'), "two models are called 'one'"),
    (TOML.replace("bench = 0.1", "bench = -1"), "bench"), (TOML.replace("licence = \"CC0\"", "license = 1"), "licence"),
    (TOML.replace("count = 8", "count = 0"), "count"),
])  # fmt: skip
def test_a_mistake_in_a_zoo_is_told_in_one_line(tmp_path, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        zoo.read_zoo(written(tmp_path, text))
    assert "\n" not in str(caught.value)
