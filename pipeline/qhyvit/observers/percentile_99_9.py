"""Percentiles of the values: clips the rarest 0.1 %."""

from __future__ import annotations

from qhyvit.observers.shared.observer import Observer
from qhyvit.observers.shared.percentiles import at

OBSERVER = Observer("percentile_99.9", "clips the rarest 0.1 % of the values", at(1e-3))
