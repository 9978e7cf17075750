"""The demo's last lines are read from what an evaluation gives."""

import numpy as np

from benchmarks.demo.__main__ import table
from qhyvit.evaluation import evaluated
from qhyvit.tasks import task
from qhyvit.tasks.shared.layout import Layout


def test_the_table_has_the_figures_of_an_evaluation():
    truth = np.array([0, 1, 2, 0, 1])
    floating, integer = np.eye(3)[[0, 1, 2, 0, 0]], np.eye(3)[[0, 1, 1, 0, 1]]
    found = evaluated(task("classify"), Layout(("logits",), ((3,),)), integer, floating, truth, "crop").to_json()
    rows = [line.split() for line in table(found, {"float": 4000, "integer": 1000}).splitlines()[1:]]
    assert rows == [["float", "80.0", "4"], ["integer", "80.0", "60.0", "1"]]
