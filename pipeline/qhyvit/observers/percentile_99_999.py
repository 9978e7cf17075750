"""Percentiles of the values: clips the rarest 0.001 %."""

from __future__ import annotations

from qhyvit.observers.shared.observer import Observer
from qhyvit.observers.shared.percentiles import at

OBSERVER = Observer("percentile_99.999", "clips the rarest 0.001 % of the values", at(1e-5))
