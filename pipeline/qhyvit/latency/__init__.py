"""Milliseconds of an op by its kernel: a profile of a processor, and how one is fitted to what a bench measured."""

from __future__ import annotations

from qhyvit.latency.profile import Kernel, LatencyProfile, default_profile
from qhyvit.latency.work import Work

__all__ = ["Kernel", "LatencyProfile", "Work", "default_profile"]
