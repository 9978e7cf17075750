"""Where the time of each file goes, op by op, and the floor that its layers alone set.

Reads what ``benchmarks.latency --prepare`` made. Each file runs by itself with the interpreter's profiler on; every
event is put to its node (``qhyvit.latency.fit``) and counted by what kind of work it is. *Floor*: the time of int8
layers with weights alone, over the stock float file's whole; no arrangement of what lies between them goes below.
Measure on a machine left to itself. Example:

    python -m benchmarks.op_times --work build/latency
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks._files import RESULTS, write_rows
from benchmarks.latency import FILES, MODELS, file_name
from qhyvit.latency.fit import own_events
from qhyvit.ops import all_ops
from qhyvit_device.profile import profile

LAYERS = frozenset(name for name, op in all_ops().items() if op.weight_input >= 0)
COPIES = ("RESHAPE", "TRANSPOSE", "PAD", "CONCATENATION", "SLICE", "STRIDED_SLICE", "SPLIT")
KINDS = ("layers", "products", "borders", "softmax", "copies", "float", "int8", "between")


def kind_of(op: str, written: str) -> str:
    """One of ``KINDS`` for an op that writes the type ``written``."""
    if op in ("QUANTIZE", "DEQUANTIZE"):
        return "borders"
    if op in LAYERS:
        return "layers"
    if op == "BATCH_MATMUL":
        return "products"
    if op == "SOFTMAX":
        return "softmax"
    if op in COPIES:
        return "copies"
    return "float" if written == "float32" else "int8"


def by_kind(measured: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds of each kind; ``between``: events of no node (XNNPACK's own copies) and the time outside events."""
    total: Counter[str] = Counter()
    nodes, tensors, events = measured["graph"]["nodes"], measured["graph"]["tensors"], measured["events"]
    taken = set()
    for (op, _, outputs), index in zip(nodes, own_events(measured), strict=True):
        if index is not None:
            taken.add(index)
            total[kind_of(op, tensors[str(outputs[0])][0])] += events[index]["us"]
    rest = sum(e["us"] for i, e in enumerate(events) if i not in taken)
    total["between"] = rest + measured["overhead_us"]
    return {kind: total[kind] / 1e3 for kind in KINDS}


def rows_of(model: str, folder: Path, runs: int) -> list[dict[str, Any]]:
    """One row a file."""
    found = {name: asdict(profile(folder / file_name(name), 1, runs)) for name in FILES}
    times = {name: by_kind(measured) for name, measured in found.items()}
    base = sum(times["stock float"].values())
    return [
        {"model": model, "file": name, "ops": len(found[name]["graph"]["nodes"]), "ms": f"{sum(kinds.values()):.2f}",
         **{k: f"{ms:.2f}" for k, ms in kinds.items()},
         "to_float": f"{sum(kinds.values()) / base:.3f}", "floor": f"{kinds['layers'] / base:.3f}"}
        for name, kinds in times.items()
    ]  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas")
    parser.add_argument("--work", type=Path, required=True, help="folder that benchmarks.latency made")
    parser.add_argument("--runs", type=int, default=40, help="inferences of each file")
    parser.add_argument("--out", type=Path, default=RESULTS / "op_times.csv")
    args = parser.parse_args()
    for model in track(args.models.split(","), "profile", disable=not sys.stderr.isatty()):
        rows = rows_of(model, args.work / model, args.runs)
        for row in rows:
            print(", ".join(f"{k} {v}" for k, v in row.items()), flush=True)
        write_rows(args.out, rows, ("model", "file"))


if __name__ == "__main__":
    main()
