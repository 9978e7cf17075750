"""Milliseconds of an op by its kernel: a profile of a processor, and how one is fitted to what a bench measured."""

from __future__ import annotations

from qhyvit.latency.profile import KernelTime, LatencyProfile, default_profile
from qhyvit.latency.work import KernelWork

__all__ = ["KernelTime", "KernelWork", "LatencyProfile", "default_profile"]
