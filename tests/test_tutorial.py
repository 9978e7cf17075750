"""Pages of docs/ as a newcomer follows them: their files are written and their ``sh`` blocks run, in their order.

README.md and docs/tutorial.md are walked command by command in ``test_walk.py``.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qhyvit.tasks import all_tasks
from tests._pages import BLOCK, ROOT, Desk


def followed(page, desk):
    """What each ``sh`` block of a page of docs/ printed."""
    printed = []
    for kind, body in BLOCK.findall((ROOT / "docs" / page).read_text()):
        if kind == "python":
            (desk.tour / re.match(r"# (\S+\.py)\n", body)[1]).write_text(body)
        elif kind == "sh":
            printed.append(desk.run(body))
    return printed


def tables(printed):
    """Each table of ``evaluate``: the figures of float and of integer, as far as it has such a row."""
    found = []
    for model, row in re.findall(r"^│ (float|integer) +│(.+)│$", printed, re.MULTILINE):
        if model == "float" or not found or "integer" in found[-1]:
            found.append({})
        found[-1][model] = [float(cell) for cell in row.split("│") if re.fullmatch(r" *[\d.]+ *", cell)]
    return found


def test_tables_are_told_apart():
    """Cells that are empty, or hold two counts, are no figures; a table may have no row of float."""
    two = "│ float   │ 74.5 │      │       │\n│ integer │ 75.5 │ 91.5 │ 6 / 4 │\n│ integer │ 99.36 │\n"
    assert tables(two) == [{"float": [74.5], "integer": [75.5, 91.5]}, {"integer": [99.36]}]


@dataclass(frozen=True)
class Tour:
    """The folder in which the pages of tasks were followed, and what each ``sh`` block of a task's page printed."""

    folder: Path
    printed: dict[str, list[str]]

    def of(self, name):
        """All that a task's page printed, its tables of ``evaluate``, and what the last block printed."""
        whole = "".join(self.printed[name])
        assert "FAILED" not in whole
        return whole, tables(whole), self.printed[name][-1]


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """The overview, then each task's page, in one folder."""
    desk = Desk(tmp_path_factory.mktemp("tasks"))
    followed("tasks.md", desk)
    return Tour(desk.tour, {name: followed(f"tasks/{name}.md", desk) for name in all_tasks()})


@pytest.mark.slow
def test_the_pages_of_tasks_build_one_bundle_of_each(tour):
    built = {p.parent.name: json.loads(p.read_text())["task"] for p in tour.folder.glob("*/manifest.json")}
    assert built == {
        "classes-int8": "classify", "features-int8": "embed", "one-int8": "multilabel", "labels-int8": "multilabel",
        "corners-int8": "regress", "where-int8": "segment", "two-int8": "raw",
    }  # fmt: skip


@pytest.mark.slow
def test_the_page_of_classes(tour):
    _, (table,), shown = tour.of("classify")
    (top1, top5), (int_top1, int_top5, agree, _) = table["float"], table["integer"]
    assert (top1, top5) == (pytest.approx(int_top1, abs=5), pytest.approx(int_top5, abs=5))
    assert top1 > 65
    assert agree > 85
    assert re.search(r"0003\.jpg\n +[\d.]+ %  star \(6\)\n", shown)


@pytest.mark.slow
def test_the_page_of_labels(tour):
    _, measured, shown = tour.of("multilabel")
    assert len(measured) == 2  # three labels, and one
    for table in measured:
        (precision, right), (int_precision, int_right, alike, _) = table["float"], table["integer"]
        assert (precision, right) == (pytest.approx(int_precision, abs=3), pytest.approx(int_right, abs=3))
        assert precision > 80
        assert alike > 94
    kinds = re.findall(r"^.*\.jpg$|[a-z]+(?= \(\d\)$)", shown, re.MULTILINE)
    assert kinds[:3] == ["shapes/val/ring/0003.jpg", "hollow", "round"]
    assert kinds[-2:] == ["shapes/val/ring/0003.jpg", "hollow"]


@pytest.mark.slow
def test_the_page_of_values(tour):
    _, (table,), shown = tour.of("regress")
    floating, integer = table["float"], table["integer"]
    assert floating[0] == pytest.approx(integer[0], abs=0.2)  # corners, of 0 to 12
    assert floating[2] > 0.6
    assert integer[3] > 0.96  # R squared to float
    assert float(re.search(r"([\d.]+)  corners", shown)[1]) == pytest.approx(10, abs=1)


@pytest.mark.slow
def test_the_page_of_embeddings(tour):
    printed, (table,), _ = tour.of("embed")
    floating, integer = table["float"], table["integer"]
    assert floating[0] == pytest.approx(integer[0], abs=6)
    assert integer[1] > 0.98  # the cosine to float
    assert printed.count("  star/") >= 2  # of the three nearest pictures of the gallery
    vectors = np.load(tour.folder / "vectors.npy")
    assert vectors.shape == (200, 320)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_the_page_of_maps(tour):
    _, (table,), shown = tour.of("segment")
    floating, integer = table["float"], table["integer"]
    assert floating[:2] == pytest.approx(integer[:2], abs=5)
    assert floating[1] > 40  # one class of ten everywhere would be a tenth
    assert integer[2] > 88
    assert "drawn: where.png" in shown
    assert (tour.folder / "where.png").stat().st_size > 1000
    assert (tour.folder / "where.html").read_text().count("data:image/jpeg") >= 4


@pytest.mark.slow
def test_the_page_of_raw_outputs(tour):
    printed, (table,), _ = tour.of("raw")
    (kept,) = table["integer"]
    assert 97 < kept <= 100  # percent of the variance
    each = re.findall(r"^│ (shape|features) +│ +([\d.]+) │$", printed, re.MULTILINE)
    assert sorted(name for name, _ in each) == ["features", "shape"]
    assert kept == float(each[0][1]) <= float(each[1][1])  # the worst first
    with np.load(tour.folder / "outputs.npz") as found:
        assert {name: found[name].shape for name in found} == {"shape": (1, 10), "features": (1, 320)}


@pytest.mark.slow
def test_a_segmentation_of_ones_own_is_trained_built_and_measured(tmp_path):
    desk = Desk(tmp_path)
    tour = desk.tour
    _, trained, built, device = followed("segmentation.md", desk)
    assert float(re.search(r"loss ([\d.]+)", trained)[1]) < 0.3
    assert "FAILED" not in built
    float_miou, integer = (
        float(re.search(rf"│ {name} +│ +([\d.]+)", built)[1]) for name in ("float", "integer")
    )
    assert float_miou > 60
    assert abs(float_miou - integer) < 3
    assert "worst_difference 0" in device
    assert (tour / "over.png").stat().st_size > 0
    assert "data:image" in (tour / "scenes-int8.html").read_text()
