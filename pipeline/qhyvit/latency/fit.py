"""Fits a latency profile to the files that ``bench --profile-ops`` writes.

XNNPACK names its operators in the order in which they run, and does not say which node each of them is: the longest
common subsequence of nodes and operators tells. A node left over was computed together with a neighbour.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.latency.profile import KernelTime, LatencyProfile, default_profile, from_json, packaged
from qhyvit.latency.work import TABLE, KernelWork, role, work
from qhyvit.ops import all_ops

TABLE_NAMES = ("Invalid Unary Op",)  # of XNNPACK's operators that look codes up
ROUNDS, LEAST_OFF = 30, 1e-6  # of reweighted squares
CLEAR_US = 1.0  # the clock counts whole microseconds: below, ratios say little
CUT_US = 0.5  # of each op's time: XNNPACK cuts off what is less than a microsecond
VANISHING = ("MUL/square", "MUL/silu", "PAD")  # what XNNPACK may compute together with a neighbour
AGAIN = "`qhyvit-device bench MODEL --profile-ops --json FILE` makes one"


@dataclass(frozen=True)
class Sample:
    """One op of one model and its microseconds; None: no kernel ran for it alone."""

    work: KernelWork
    us: float | None
    builtin: bool


def benches(raw: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(host or "", bench) of the file of one device, or of several boards'."""
    if "models" in raw:
        yield "", raw
    elif "benches" in raw:
        yield from (("", bench) for bench in raw["benches"])
    else:
        for host, found in raw.items():
            yield from ((host, bench) for bench in found["benches"])


def _fits(nodes: Sequence[str], events: Sequence[tuple[str, int | None]]) -> list[list[bool]]:
    """Whether event j can be that of node i, [nodes][events]."""
    starts = {name: op.xnnpack for name, op in all_ops().items()} | {TABLE: TABLE_NAMES}
    own = [starts.get(op, ()) for op in nodes]
    return [[n == i if n is not None else name.startswith(own[i]) for name, n in events] for i in range(len(nodes))]


def align(nodes: Sequence[str], events: Sequence[tuple[str, int | None]]) -> list[int | None]:
    """For each node (its op) the event that is its own, or None; both in the order of execution.

    Args:
        events: (name, node, or None where XNNPACK ran it).
    """
    fits = _fits(nodes, events)
    best = [[0] * (len(events) + 1) for _ in range(len(nodes) + 1)]  # longest common part of what follows
    for i in reversed(range(len(nodes))):
        for j in reversed(range(len(events))):
            best[i][j] = best[i + 1][j + 1] + 1 if fits[i][j] else max(best[i + 1][j], best[i][j + 1])
    found: list[int | None] = [None] * len(nodes)
    i = j = 0
    while i < len(nodes) and j < len(events):
        if fits[i][j]:
            found[i] = j
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def execution_order(nodes: Sequence[tuple[str, Sequence[int], Sequence[int]]], builtin: Collection[int]) -> list[int]:
    """Indices of the nodes in the order in which TFLite runs them once a delegate has all but ``builtin``.

    It takes, as long as there are any, all nodes of one kind whose inputs are there; then those of the other kind.
    """
    waiting = set(range(len(nodes)))
    unwritten = {t for _, _, outputs in nodes for t in outputs}
    found: list[int] = []
    while waiting:
        before, kind = len(found), None
        for i in sorted(waiting):
            ready = not unwritten.intersection(nodes[i][1])
            if ready and kind in (None, i in builtin):
                kind = i in builtin
                found.append(i)
                waiting.remove(i)
                unwritten.difference_update(nodes[i][2])
        if len(found) == before:
            raise ValueError("nodes read what no node writes")
    return found


def _is_table(op: str) -> bool:
    return op in all_ops() and all_ops()[op].table


def tables(nodes: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> set[int]:
    """Indices of the nodes that are a table of codes for XNNPACK: elementwise, between DEQUANTIZE and QUANTIZE."""
    made = {t: op for op, _, outputs in nodes for t in outputs}
    readers: dict[int, list[str]] = defaultdict(list)
    for op, inputs, _ in nodes:
        for t in inputs:
            readers[t].append(op)
    return {
        i for i, (op, inputs, outputs) in enumerate(nodes)
        if _is_table(op) and made.get(inputs[0]) == "DEQUANTIZE" and readers[outputs[0]] == ["QUANTIZE"]
    }  # fmt: skip


def own_events(model: Mapping[str, Any]) -> list[int | None]:
    """For each node of a model of a bench file its event, or None."""
    nodes, events = model["graph"]["nodes"], model["events"]
    builtin = {e["node"] for e in events if e["node"] is not None}
    order, looked_up = execution_order(nodes, builtin), tables(nodes)
    place = {i: k for k, i in enumerate(order)}
    named = [(e["name"], None if e["node"] is None else place[e["node"]]) for e in events]
    found = align([TABLE if i in looked_up else nodes[i][0] for i in order], named)
    return [found[place[i]] for i in range(len(nodes))]


def samples(model: Mapping[str, Any]) -> list[Sample]:
    """Every op of a model of a bench file that we know, with its time.

    Raises:
        KeyError, TypeError, ValueError, IndexError: the file is not what it should be.
    """
    nodes, tensors, events = model["graph"]["nodes"], model["graph"]["tensors"], model["events"]
    made, looked_up = {t: (op, inputs) for op, inputs, outputs in nodes for t in outputs}, tables(nodes)
    found = []
    for i, ((op, inputs, outputs), j) in enumerate(zip(nodes, own_events(model), strict=True)):
        if op not in all_ops():
            continue
        shapes = [tuple(tensors[str(t)][1]) if t >= 0 else () for t in inputs]
        writes, out = tensors[str(outputs[0])]
        activations = [t for t in inputs if t in made] or [t for t in inputs if t >= 0]
        reads = tensors[str(activations[0])][0]
        what = work(op, role(op, inputs, made.get), shapes, tuple(out), (reads, writes))
        what = replace(what, kernel=TABLE) if i in looked_up else what
        builtin = j is not None and events[j]["kernel"] == "builtin"
        us = None if j is None else float(events[j]["us"]) + (0.0 if builtin else CUT_US)
        found.append(Sample(what, us, builtin))
    return found


def fit_kernel(own: Sequence[Sample]) -> KernelTime | None:
    """Least absolute error over the root of the time, none below zero; None where no sample has a time of its own.

    Kernels of XNNPACK count where there are any: what it refuses runs elsewhere, and the writer avoids that. Where all
    samples are of one size, the time is taken to grow with it.
    """
    timed = [s for s in own if s.us is not None]
    if not timed:
        return KernelTime(samples=len(own)) if own[0].work.kernel.split()[0] in VANISHING else None
    builtin = all(s.builtin for s in timed)
    timed = [s for s in timed if s.builtin == builtin]
    us = np.array([s.us for s in timed])
    parts = np.array([[1.0, s.work.elements, s.work.macs] for s in timed])
    parts[:, 0] = np.ptp(parts[:, 1]) > 0
    x, error = _least_absolute(parts, us)
    fixed, element, mac = (float(f"{v:.5g}") for v in (x[0], x[1] * 1e3, x[2] * 1e3))
    return KernelTime(fixed, element, mac, builtin, len(timed), round(error, 3))


def _least_absolute(parts: NDArray[np.float64], us: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """x >= 0 with the least sum of |parts x - us| / sqrt(us + CLEAR_US), by reweighted squares; the median of
    |parts x - us| / (us + CLEAR_US).

    Between relative errors, which small ops decide because there are more of them, and absolute ones, which the few
    largest decide: a tensor that leaves the cache takes longer an element.
    """
    from scipy.optimize import nnls

    size = np.maximum(parts.max(0), 1.0)
    share = np.sqrt(us + CLEAR_US)
    rows, target = parts / size / share[:, None], us / share
    weight = np.ones(len(us))
    for _ in range(ROUNDS):
        x = nnls(rows * weight[:, None], target * weight)[0]
        off = np.abs(rows @ x - target)
        weight = 1 / np.sqrt(np.maximum(off, LEAST_OFF))
    return x / size, float(np.median(off / share))


def fit_samples(all_samples: Sequence[Sample]) -> dict[str, KernelTime]:
    """A kernel for every name."""
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for sample in all_samples:
        by_name[sample.work.kernel].append(sample)
    fitted = {name: fit_kernel(own) for name, own in by_name.items()}
    return {name: kernel for name, kernel in fitted.items() if kernel is not None}


def slowdown(all_samples: Sequence[Sample], base: LatencyProfile) -> float:
    """Median of measured time over what ``base`` says; 1 where nothing can be compared."""
    ratios = []
    for s in all_samples:
        kernel = base.kernels.get(s.work.kernel)
        expected = 0.0 if kernel is None else 1e3 * kernel.ms(s.work.elements, s.work.macs)
        if s.us is not None and s.us > CLEAR_US and expected > CLEAR_US:
            ratios.append(s.us / expected)
    return median(ratios) if ratios else 1.0


def completed(kernels: Mapping[str, KernelTime], times: float, base: LatencyProfile) -> dict[str, KernelTime]:
    """``kernels``, and those of ``base`` that are missing, ``times`` as slow."""
    scaled = {name: replace(k, samples=0) for name, k in base.scaled(times).kernels.items()}
    return {**scaled, **kernels}


def _partition_us(models: Sequence[Mapping[str, Any]]) -> float | None:
    """What one more part costs: the time that no op takes, over ops and parts; None if all have as many parts."""
    from scipy.optimize import nnls

    rows, left = [], []
    for model in models:
        kinds = [e["kernel"] for e in model["events"]]
        parts = sum(k == "xnnpack" and (i == 0 or kinds[i - 1] != k) for i, k in enumerate(kinds))
        rows.append((1.0, len(kinds), parts))
        left.append(float(model["overhead_us"]))
    if len({row[2] for row in rows}) < 2:
        return None
    return round(float(nnls(np.array(rows), np.array(left))[0][2]), 3)


def _named(bench: Mapping[str, Any]) -> str:
    board = bench["board"]
    parts = [board["board"], board["processor"], ", ".join(board["features"]), bench["models"][0]["runtime"]]
    return "; ".join(str(p) for p in parts if p)


def _least_threads(path: Path) -> list[dict[str, Any]]:
    """Of each board in a bench file, the bench with the fewest threads.

    Raises:
        InputError: unreadable, or no bench file.
    """
    try:
        by_host: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for host, bench in benches(json.loads(files.read_bytes(path, "bench file"))):
            by_host[host].append(bench)
        return [min(own, key=lambda b: int(b["settings"]["threads"])) for own in by_host.values()]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is no bench file ({error!r}); {AGAIN}") from error


def fit(paths: Sequence[Path], base: LatencyProfile | None = None) -> LatencyProfile:
    """The profile of the processor on which these bench files were made.

    Kernels that they do not hold are those of ``base`` (None: the default), scaled by the median ratio of the others.

    Raises:
        InputError: no bench file, no times by op in it, or boards or thread counts that differ.
    """
    base = base or default_profile()
    shown = ", ".join(map(str, paths))
    found = [bench for path in paths for bench in _least_threads(path)]
    try:
        setups = sorted({(_named(b), int(b["settings"]["threads"])) for b in found})
        models = [m for b in found for m in b["models"] if m.get("events") and m.get("graph")]
        measured = [s for m in models for s in samples(m)]
        partition = _partition_us(models) if models else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{shown}: the times by op cannot be read ({error!r}); {AGAIN}") from error
    if not measured:
        raise InputError(f"{shown}: no times by op in it; {AGAIN}")
    if len(setups) > 1:
        listed = " and ".join(f"{name}, {threads} threads" for name, threads in setups[:2])
        raise InputError(f"{shown}: measured on {listed}; one profile is one processor with one number of threads")
    times = slowdown(measured, base)
    own = completed(fit_samples(measured), times, base)
    name, threads = setups[0]
    return LatencyProfile(name, threads, base.partition_us * times if partition is None else partition, own, base.sizes)


def load(path: Path) -> LatencyProfile:
    """A profile from a file: one that was fitted, or a bench file with times by op, which is fitted here.

    Args:
        path: or a name of :func:`qhyvit.latency.profile.packaged`, where there is no such file.

    Raises:
        InputError: neither.
    """
    if not path.exists():
        if path.name not in packaged():
            names = ", ".join(packaged())
            raise InputError(f"latency profile {path} does not exist; the package has those of {names}")
        path = packaged()[path.name]
    try:
        raw = json.loads(files.read_bytes(path, "latency profile"))
    except ValueError as error:
        raise InputError(f"{path} is neither a latency profile nor a bench file (no JSON); {AGAIN}") from error
    if not isinstance(raw, dict):
        raise InputError(f"{path} is neither a latency profile nor a bench file; {AGAIN}")
    return from_json(raw, str(path)) if "kernels" in raw else fit([path])
