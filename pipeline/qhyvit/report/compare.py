"""Two plans or bundles side by side: tensors that differ, folds, accuracy, size, latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qhyvit import files
from qhyvit.errors import InputError
from qhyvit.evaluation import Evaluation, evaluate
from qhyvit.plan import QuantPlan, TensorQuant
from qhyvit.progress import Log, Progress, silent
from qhyvit.report import latency
from qhyvit.report.facts import rounded
from qhyvit.report.page import environment
from qhyvit.tasks import task
from qhyvit.verify.census import census
from qhyvit.work import MODEL, PLAN, VERIFY, Work
from qhyvit_device import manifest as manifests

Table = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]
SHOWN = 40  # tensors in the text table; JSON and page have all
FIELDS = ("scheme", "granularity", "bits", "zero_point", "scale")


@dataclass(frozen=True)
class Side:
    """One of the two: what is known of it, None where it is not.

    ``float_agreement_percent``: of verification; ``kept_of_float``: on the images given, as the task reads it. The
    fields behind them have the same of every output, or of every value, by name, the worst first. ``figures``: what the
    task counts by labels, by name; nothing without labels.
    """

    name: str
    task: str
    method: str
    profile: str
    calibration_images: int
    options: dict[str, Any]
    folds: tuple[str, ...]
    int16: tuple[str, ...]
    size_bytes: int | None
    ops: int | None
    partitions: int | None
    mean_sqnr_db: float | None
    float_agreement_percent: float | None
    float_agreement_percent_each: dict[str, float]
    kept_of_float: float | None
    kept_of_float_each: dict[str, float]
    figures: dict[str, float]
    p50_ms: float | None


@dataclass(frozen=True)
class TensorDifference:
    """One tensor of both plans: its fields that differ, as (first, second); ``scale_ratio``: second over first."""

    name: str
    fields: dict[str, tuple[Any, Any]]
    scale_ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """Both sides, the tensors of one only, those that differ (largest change of scale first), the number equal."""

    sides: tuple[Side, Side]
    only: tuple[tuple[str, ...], tuple[str, ...]]
    different: tuple[TensorDifference, ...]
    equal: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class _Source:
    """Where to find what: the plan; model file and verification where there are."""

    path: Path
    plan: QuantPlan
    model: Path | None
    work: Path | None


def _plan(path: Path) -> QuantPlan:
    return QuantPlan.from_json(files.read_text(path, "plan"))


def _source(path: Path) -> _Source:
    """A bundle with its work directory, a work directory, or a plan alone.

    Raises:
        InputError: none of these, or the bundle's work directory is gone or another's.
    """
    if path.is_file():
        return _Source(path, _plan(path), None, None)
    if (path / manifests.FILE_NAME).is_file():
        work, manifest = files.beside(path, ".work"), manifests.load(path / manifests.FILE_NAME)
        file = work / PLAN
        if not file.is_file() or files.sha256(file.read_bytes()) != manifest.created_by.get("plan_sha256"):
            raise InputError(f"{path}: its plan is not in {work}; give its work directory or plan.json")
        return _Source(path, _plan(file), path / manifest.model_file, work)
    if (path / PLAN).is_file():
        model = path / MODEL
        return _Source(path, _plan(path / PLAN), model if model.is_file() else None, path)
    raise InputError(f"{path} is no bundle, no work directory with a plan, and no plan file")


def _side(source: _Source, measured: Evaluation | None, p50_ms: float | None) -> Side:
    """``measured``: on the images given."""
    plan = source.plan
    counted = None if source.model is None else census(files.read_bytes(source.model, "model"))
    verified = source.work is not None and (source.work / VERIFY).is_file()
    found = Work(source.work).json(VERIFY) if verified and source.work is not None else {}
    sqnr, decided = list(found.get("sqnr_db", {}).values()), found.get("against_float")
    alike = None if measured is None else measured.alike
    unit = 1 if task(plan.task).reading.endswith("%") else 100
    each = {name: rounded(unit * reading) for name, reading in ((decided or {}).get("each") or {}).items()}
    figures = {} if measured is None or measured.integer is None else measured.integer.figures
    return Side(
        str(source.path), plan.task, plan.method, plan.profile, plan.image_count, dict(plan.options),
        tuple(f"{f.fold} at {f.place}" for f in plan.folds), plan.wide,
        None if counted is None else counted.size_bytes, None if counted is None else counted.op_count,
        None if counted is None else counted.partitions, rounded(float(np.mean(sqnr))) if sqnr else None,
        rounded(100 * decided["alike"]["share"]) if decided else None, each,
        None if alike is None else rounded(alike.reading),
        {} if measured is None else {name: rounded(reading) for name, reading in measured.each.items()},
        {name: rounded(figure) for name, figure in figures.items()}, p50_ms,
    )  # fmt: skip


def _fields(a: TensorQuant) -> dict[str, Any]:
    values = (a.choice.scheme.value, a.choice.granularity.value, a.bits, a.zero_point, a.scale)
    return dict(zip(FIELDS, values, strict=True))


def _difference(name: str, a: TensorQuant, b: TensorQuant) -> TensorDifference | None:
    first, second = _fields(a), _fields(b)
    fields = {key: (first[key], second[key]) for key in FIELDS if first[key] != second[key]}
    if not fields:
        return None
    same_length = len(a.scale) == len(b.scale)
    ratio = rounded(float(np.exp(np.mean(np.log(b.scale)) - np.mean(np.log(a.scale))))) if same_length else None
    return TensorDifference(name, fields, ratio)


def compare(
    first: Path, second: Path, images: Path | None, labels: Path | None, bench: Path | None, mode: str | None,
    progress: Progress, log: Log = silent,
) -> Comparison:  # fmt: skip
    """Everything that differs.

    Raises:
        InputError: one of the two is nothing that can be compared, or images or bench file are unfit.
    """
    sources = _source(first), _source(second)
    measured: list[Evaluation | None] = [None, None]
    if images is not None:
        measured = [evaluate(source.path, images, labels, None, mode, progress, log) for source in sources]
    rows = () if bench is None else latency.read(bench)
    p50 = {row.model: row.p50_ms for row in reversed(rows)}
    sides = tuple(_side(s, m, p50.get(s.path.resolve().name)) for s, m in zip(sources, measured, strict=True))
    a, b = sources[0].plan.tensors, sources[1].plan.tensors
    both = [name for name in a if name in b]
    different = [d for d in (_difference(name, a[name], b[name]) for name in both) if d is not None]
    different.sort(key=lambda d: (-abs(np.log(d.scale_ratio)) if d.scale_ratio else -np.inf, d.name))
    only = tuple(sorted(a.keys() - b.keys())), tuple(sorted(b.keys() - a.keys()))
    return Comparison((sides[0], sides[1]), only, tuple(different), len(both) - len(different))


def _shown(key: str, value: Any) -> str:
    if key == "scale":
        return f"{value[0]:.4g}" if len(value) == 1 else f"{min(value):.3g} to {max(value):.3g}"
    if isinstance(value, tuple):
        return str(value[0]) if len(value) == 1 or len(set(value)) == 1 else f"{min(value)} to {max(value)}"
    return str(value)


def _known(side: Mapping[str, Any], key: str) -> Any:
    """A fact of a side, and of which output it is where there are several; "" is not known."""
    each = side.get(f"{key}_each")
    return "" if side[key] is None else f"{side[key]}{task(side['task']).worst_of(each)}" if each else side[key]


def tables(c: Comparison, shown: int | None = SHOWN) -> list[Table]:
    """(title, columns, rows) of everything, for text and page."""
    a, b = (asdict(s) for s in c.sides)
    names = tuple(s.name for s in c.sides)
    apart = ("name", "options", "folds", "int16", "figures")
    keys = [k for k in a if k not in apart and (a[k], b[k]) != (None, None)]
    facts: list[tuple[Any, ...]] = [(k, _known(a, k), _known(b, k)) for k in keys if not k.endswith("_each")]
    facts += [(k, *(side["figures"].get(k, "") for side in (a, b))) for k in {**a["figures"], **b["figures"]}]
    options = sorted({*a["options"], *b["options"]})
    facts += [
        (f"option {k}", a["options"].get(k, ""), b["options"].get(k, "")) for k in options
        if a["options"].get(k) != b["options"].get(k)
    ]  # fmt: skip
    facts += [("folds", len(a["folds"]), len(b["folds"])), ("int16 tensors", len(a["int16"]), len(b["int16"]))]
    found: list[Table] = [("", ("", *names), facts)]
    edits = [(f, "yes" if f in a["folds"] else "", "yes" if f in b["folds"] else "")
             for f in sorted({*a["folds"]} ^ {*b["folds"]})]  # fmt: skip
    if edits:
        found.append((f"{len(edits)} folds of one only", ("fold", *names), edits))
    rows = [
        (d.name, "" if d.scale_ratio is None else f"{d.scale_ratio:.3g}",
         *("; ".join(f"{k} {_shown(k, pair[i])}" for k, pair in d.fields.items()) for i in (0, 1)))
        for d in c.different[:shown]
    ]  # fmt: skip
    left = f", the first {len(rows)}" if len(rows) < len(c.different) else ""
    title = f"{len(c.different)} tensors differ{left}; {c.equal} are equal"
    found.append((title, ("tensor", "scale ratio", *names), rows))
    for name, only in zip(names, c.only, strict=True):
        if only:
            found.append((f"{len(only)} tensors of {name} only", ("tensor",), [(t,) for t in only[:shown]]))
    return found


def render(c: Comparison) -> str:
    """The comparison as one page that fetches nothing."""
    names = [s.name for s in c.sides]
    return environment().get_template("compare.html").render(names=names, tables=tables(c, None))
