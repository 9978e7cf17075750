"""A look into a file, bundle or work directory."""

from __future__ import annotations

import json
from pathlib import Path

from qhyvit import console
from qhyvit.errors import InputError
from qhyvit.stages import plan_of, solved
from qhyvit.verify.census import Census, census
from qhyvit.work import FOLDED, MODEL, PLAN, Work
from qhyvit_device import files
from qhyvit_device.interpreter import MAX_MODEL_BYTES


def _show(found: Census, title: str) -> None:
    rows = [(op, dtype, n) for (op, dtype), n in sorted(found.ops.items(), key=lambda kv: -kv[1])]
    console.table(title, ("op", "dtype", "count"), rows)
    left = ", ".join(f"{n} {op}" for op, n in sorted(found.not_delegated.items())) or "none"
    console.say(f"{found.op_count} ops, {found.size_bytes} bytes, {len(found.float_tensors)} float tensors")
    console.say(f"{found.partitions} delegate partitions; ops that builtin kernels run: {left}")
    console.say(f"runs on {found.oldest_runtime}")


def inspect(path: Path, *, graph: bool, tensors: bool, as_json: bool) -> None:
    """Print what was asked for.

    Raises:
        InputError: nothing to look at, or no plan where one is needed.
    """
    if graph or tensors:
        if not (path / FOLDED).is_file() or not (path / PLAN).is_file():
            raise InputError(f"{path} is no work directory with a plan; --graph and --tensors need one")
        _print_plan(Work(path), graph=graph, as_json=as_json)
        return
    file = path / MODEL if path.is_dir() else path
    found = census(files.read(file, MAX_MODEL_BYTES, links=True))
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _show(found, str(file))


def _print_plan(work: Work, *, graph: bool, as_json: bool) -> None:
    from qhyvit.graph.dump import dump

    if graph:
        print(dump(solved(work).folded), end="")
        return
    plan = plan_of(work)
    if as_json:
        print(plan.to_json(), end="")
        return
    rows = []
    for name, q in plan.tensors.items():
        scales = f"{q.scale[0]:.4g}" if q.axis is None else f"{min(q.scale):.3g} to {max(q.scale):.3g}"
        rows.append((name, q.choice.granularity, q.choice.scheme, scales, q.zero_point[0] if q.axis is None else 0))
    columns = ("tensor", "granularity", "scheme", "scale", "zero point")
    console.table(f"{plan.method}, {len(rows)} tensors", columns, rows)
    for note in plan.folds:
        console.say(f"fold {note.fold} at {note.place}")
    for name, line in plan.bridge.items():
        console.say(f"bridge {name}: {line}")
