"""Sweeps whose labels are values: columns go by the names of the model's values, where somebody gave them."""

import json
from pathlib import Path

import pytest

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.sweep import tasks
from qhyvit.sweep.matrix import matrix
from qhyvit.sweep.pool import Pool
from qhyvit.sweep.run import sweep
from qhyvit.sweep.spec import read_spec
from qhyvit.work import FACTS, Work
from tests._bundles import COLOURS, SIZE, picture

MODEL = "models = [{name = 'mobilevit_xxs', random_weights = true%s}]\nmethods = ['minmax', 'percentile']\n"
FOLDERS = "[calibration]\nimages = 'train'\ncount = 1\n[evaluation]\nimages = 'val'\n"
NAMED, UNNAMED = MODEL % ", label_names = 'names.txt'" + FOLDERS, MODEL % "" + FOLDERS
FACTS_OF_THREE = {
    "model": "m", "task": "multilabel", "outputs": [{"name": "logits", "shape": [3]}], "classes": 3,
    "input_shape": [SIZE, SIZE, 3], "weights": "", "versions": {},
    "preprocess": {"resize": SIZE, "interpolation": "nearest", "mean": [0.0] * 3, "std": [1.0] * 3},
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    """Images with labels of values, whose columns have another order than the names."""
    for folder, colour in (("train", "W"), ("val", "b")):
        (tmp_path / folder).mkdir()
        picture([colour]).save(tmp_path / folder / "a.png")
    (tmp_path / "val" / "labels.csv").write_text("file,blue,green,red\na.png,1,0,0\n")
    (tmp_path / "names.txt").write_text("\n".join(COLOURS) + "\n")
    return tmp_path


def planned(place, text):
    (place / "s.toml").write_text(text)
    return matrix(read_spec(place / "s.toml"), place / "out")


def truth_of(job, place):
    """What a job's process takes to be right."""
    work = Work(Path(place / "work"))
    files.write_text(work.folder / FACTS, json.dumps(FACTS_OF_THREE))
    labelled, _ = tasks.test_set(work, job.arguments["evaluation"], job.arguments["names"])
    return labelled.truth.tolist()


def test_columns_go_by_the_names_of_the_model(place):
    found = planned(place, NAMED)
    assert found.notes == ()
    assert [truth_of(job, place) for job in found.jobs[1:]] == [[[0, 0, 1]]] * 3


def test_without_names_columns_keep_their_order_and_a_line_says_so(place):
    found = planned(place, UNNAMED)
    assert [truth_of(job, place) for job in found.jobs[1:]] == [[[1, 0, 0]]] * 3
    (line,) = found.notes
    assert line.startswith("mobilevit_xxs: the columns blue, green, red are taken to be the model's values in this")
    assert "label_names" in line


def test_a_sweep_says_it_before_the_work(place):
    (place / "s.toml").write_text(UNNAMED)
    lines = []

    class Idle:
        def run(self, jobs, folder, ended):
            assert len(lines) == 1
            return {}

    sweep(place / "s.toml", place / "out", Idle(), lambda *_: None, lines.append)
    assert lines == list(planned(place, UNNAMED).notes)


def test_names_determine_what_is_measured(place):
    before, after = (planned(place, text) for text in (UNNAMED, NAMED))
    assert before.jobs[0].digest == after.jobs[0].digest  # the export
    assert not {b.job.digest for b in before.builds} & {b.job.digest for b in after.builds}


@pytest.mark.parametrize(("names", "words"), [
    ("red\nother\n", "the columns blue, green, red; the model's values are red, other: name the columns so"),
    (None, "label names"),
])  # fmt: skip
def test_names_that_do_not_fit_are_refused_before_the_work(place, names, words):
    (place / "s.toml").write_text(NAMED)
    (place / "names.txt").unlink()
    if names is not None:
        (place / "names.txt").write_text(names)
    with pytest.raises(InputError, match=words) as refused:
        sweep(place / "s.toml", place / "out", Pool(workers=1), lambda *_: None, print)
    assert "\n" not in str(refused.value)


def test_classes_need_no_names(place):
    (place / "val" / "labels.csv").write_text("file,class_index\na.png,1\n")
    assert planned(place, UNNAMED).notes == ()
    assert [job.arguments["names"] for job in planned(place, NAMED).jobs[1:]] == [[]] * 3
