"""The stock converter's files: one that stops in the middle has no figures, and the others have."""

import numpy as np
import pytest

from benchmarks import stock
from qhyvit.errors import InputError


@pytest.mark.parametrize("stops", [False, True])
def test_a_file_that_stops_has_no_logits(monkeypatch, capsys, stops):
    def logits_of(model, pixels, how):
        if stops:
            raise InputError("model: refused: node number 563 (DIV) failed to invoke")
        return np.ones((2, 3))

    monkeypatch.setattr(stock, "logits_of", logits_of)
    found = stock.run(b"", np.zeros(2), None)
    assert (found is None) == stops
    assert ("does not run: model: refused" in capsys.readouterr().out) == stops
