"""What the benchmarks share."""

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks._files import RESULTS, beside_float, model_name, random_weights, ranked_images
from qhyvit.errors import InputError
from qhyvit.labels import labelled_images
from qhyvit.tasks import task
from qhyvit.tasks.shared.accuracy import Accuracy
from qhyvit_device.statistics import Ratio


@pytest.fixture
def folder(tmp_path):
    """Three images labelled 701, 0, 217."""
    lines = ["file,class_index"]
    for i, label in enumerate((701, 0, 217)):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_file_beside_float_has_the_columns_of_the_tables():
    found = beside_float(Accuracy(8, top1=6, top5=8, agree=7), 1200, 3.14159, Ratio(0.5, 0.25, 1.0))
    assert found == {
        "images": 8, "top1_percent": "75.00", "agreement_percent": "87.50", "size_bytes": 1200, "p50_ms": "3.14",
        "to_float": "0.500", "to_float_low": "0.250", "to_float_high": "1.000",
    }  # fmt: skip
    for table in ("rivals", "front"):
        with (RESULTS / f"{table}.csv").open() as stream:
            columns = next(csv.reader(stream))
        assert [column for column in columns if column in found] == list(found)


def test_labels_stay_as_they_are_where_the_model_has_them(folder):
    for found in (ranked_images(folder, None, 1000), labelled_images(folder, None, task("classify"), 1000)):
        assert found.truth.tolist() == [701, 0, 217]


def test_a_model_of_some_classes_numbers_them_in_their_order(folder):
    assert ranked_images(folder, folder / "labels.csv", 3).truth.tolist() == [2, 0, 1]


def test_labels_beyond_the_outputs_are_refused(folder):
    with pytest.raises(InputError, match="701, the model has 10"):
        ranked_images(folder, None, 10)
    with pytest.raises(InputError, match="701, the model has 3"):
        labelled_images(folder, None, task("classify"), 3)


def test_names_without_a_file_get_random_weights():
    assert random_weights("mobilevit_xxs", None)
    assert not random_weights("net.py:make", None)
    assert not random_weights("mobilevit_xxs", RESULTS)


def test_a_factory_is_called_by_its_function():
    assert model_name("some/where/net.py:make") == "make"
    assert model_name("mobilevit_xxs") == "mobilevit_xxs"


def test_no_benchmark_hides_a_module_of_python():
    """``--model-py`` puts its file's folder in front of the path: a profile.py there broke ``import cProfile``."""
    names = {path.stem for path in RESULTS.parent.glob("*.py")}
    assert "latency" in names
    assert not names & sys.stdlib_module_names
