"""Percentiles of the values: clips the rarest 0.01 % (0.005 % at each end)."""

from __future__ import annotations

from qhyvit.observers.shared.observer import Observer
from qhyvit.observers.shared.percentiles import at

OBSERVER = Observer("percentile", "clips the rarest 0.01 % of the values", at(1e-4))
