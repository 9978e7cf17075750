"""Pages of docs/ as a newcomer follows them: their files are written and their ``sh`` blocks run, in their order.

README.md and docs/tutorial.md are walked command by command in ``test_walk.py``.
"""

import json
import re

import numpy as np
import pytest

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


@pytest.mark.slow
def test_the_page_of_tasks_builds_one_bundle_of_each(tmp_path):
    desk = Desk(tmp_path)
    tour = desk.tour
    _, embedded, classified, measured, mapped, several = followed("tasks.md", desk)
    built = {p.parent.name: json.loads(p.read_text())["task"] for p in tour.glob("*/manifest.json")}
    assert built == {
        "features-int8": "embed", "one-int8": "multilabel", "labels-int8": "multilabel", "corners-int8": "regress",
        "where-int8": "segment", "two-int8": "raw",
    }  # fmt: skip
    assert "FAILED" not in "".join((embedded, classified, measured, mapped, several))
    assert float(re.search(r"integer.*?(0\.9\d+|1\.0+)", embedded)[1]) > 0.97  # the cosine to float
    assert re.search(r"drawn: where\.png", mapped)
    assert (tour / "where.png").stat().st_size > 1000
    assert (tour / "where.html").read_text().count("data:image/jpeg") >= 4
    with np.load(tour / "outputs.npz") as found:
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
