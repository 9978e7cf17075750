"""A card of a bundle: what it is, how it was made, how good and how fast, how to run it; as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qhyvit import evaluation, files
from qhyvit.errors import InputError
from qhyvit.progress import Log, Progress, silent
from qhyvit.tasks.shared.score import Truth
from qhyvit.verify.census import census
from qhyvit_device import bench, board, runner
from qhyvit_device.manifest import RANDOM, Manifest

SCHEMA_VERSION = 1
NOT_STATED = "not stated"
CONFIDENCE = 0.95
RUNS = 20  # inferences at least, of a bench
READS = {"classify": "classify", "multilabel": "classify", "regress": "classify", "embed": "embed",
         "segment": "segment"}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """How right both files are on ``Measured.images`` images; ``low`` and ``high``: Wilson's interval at 95 %.

    The interval is there for shares of images, and None for other figures.
    """

    name: str
    integer: float
    low: float | None
    high: float | None
    floating: float | None
    floating_low: float | None
    floating_high: float | None


@dataclass(frozen=True)
class Measured:
    """An evaluation in the figures of its task; ``agreement``: how much of float the file keeps.

    ``gained`` and ``lost``: images on which only the integer file, and only the float file, is right.
    """

    images: int
    folder: str
    resize_mode: str
    figures: tuple[Figure, ...]
    agreement: Figure | None
    gained: int | None
    lost: int | None
    p_value: float | None


@dataclass(frozen=True)
class Speed:
    """A bench on one machine, milliseconds and MiB; ``runs`` inferences, of which ``first_ms`` is none."""

    machine: str
    runtime: str
    threads: int
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    first_ms: float
    load_ms: float
    peak_memory_mib: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """All facts of a card.

    Args:
        input: shape [1, H, W, C] and dtype in words; ``outputs``: by name.
        made: how, by what it is called: command, method, seed, weights, versions, ...
        verified: what the verification of the build found on how many images beside float, in words.
        ops: by "OP DTYPE"; ``off_delegate``: those that XNNPACK leaves to slower kernels.
        run: shell lines.
    """

    bundle: str
    model: str
    task: str
    profile: str
    input: str
    outputs: dict[str, str]
    random_weights: bool
    licence: str
    size_bytes: int
    float_size_bytes: int | None
    ops: dict[str, int]
    off_delegate: dict[str, int]
    float_tensors: int
    oldest_runtime: str
    made: dict[str, Any]
    verified: str
    accuracy: Measured | None
    speed: Speed | None
    run: tuple[str, ...]
    schema_version: int = field(default=SCHEMA_VERSION)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class CardRequest:
    """What a card is to be made of.

    Args:
        images: labelled ones to measure on; None: no accuracy.
        labels, float_model, resize_mode: see :func:`qhyvit.evaluation.evaluate`.
        bench_seconds: how long to measure times; None: not at all.
        licence: of the weights.
    """

    bundle: Path
    images: Path | None = None
    labels: Path | None = None
    float_model: Path | None = None
    resize_mode: str | None = None
    bench_seconds: float | None = None
    licence: str = NOT_STATED


def make(request: CardRequest, progress: Progress = silent, log: Log = silent) -> Card:
    """The card of a bundle.

    Raises:
        QhyvitError: no bundle, images that cannot be measured on, or no interpreter.
    """
    model = runner.Model.load(request.bundle)
    manifest, name = model.manifest, request.bundle.resolve().name
    counted = census(files.read_bytes(request.bundle / manifest.model_file, "model"))
    reference = evaluation.float_file(request.bundle, request.float_model, model)
    return Card(
        name, manifest.model, manifest.task, manifest.profile,
        f"{[int(n) for n in model.file.input['shape']]} {manifest.input.dtype}",
        {o.name: f"{list(o.shape)} {o.dtype}" for o in manifest.outputs}, manifest.has_random_weights, request.licence,
        counted.size_bytes, None if reference is None else reference.size_bytes,
        {f"{op} {dtype}": n for (op, dtype), n in sorted(counted.ops.items())},
        dict(sorted(counted.not_delegated.items())), len(counted.float_tensors), counted.oldest_runtime,
        made_by(manifest), _verified(manifest), None if request.images is None else _accuracy(request, progress, log),
        None if request.bench_seconds is None else _speed(request, progress), _lines(manifest, name),
    )  # fmt: skip


def made_by(manifest: Manifest) -> dict[str, Any]:
    """What a bundle says of how it was made, without the list of its calibration images."""
    known = {k: v for k, v in manifest.created_by.items() if k not in ("calibration_image_hashes", "against_float")}
    return {**known, "versions": dict(manifest.versions)}


def _verified(manifest: Manifest) -> str:
    """Agreement of the build's own verification; the manifest may hold anything there."""
    found = manifest.created_by.get("against_float")
    alike = found.get("alike") if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(alike, Mapping):
        return ""
    return f"{alike.get('text')}, of {found.get('images')} images in the verification of the build"


def interval(count: int, of: int) -> tuple[float, float]:
    """Wilson's interval at 95 % of a share, in percent (Wilson 1927; scipy's)."""
    from scipy.stats import binomtest

    found = binomtest(count, of).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _bounds(percent: float | None, images: int, *, share: bool) -> tuple[float | None, float | None]:
    return interval(round(percent * images / 100), images) if share and percent is not None else (None, None)


def _figure(name: str, integer: float, floating: float | None, images: int, *, share: bool) -> Figure:
    low, high = _bounds(integer, images, share=share)
    return Figure(name, integer, low, high, floating, *_bounds(floating, images, share=share))


def _accuracy(request: CardRequest, progress: Progress, log: Log) -> Measured:
    assert request.images is not None
    found = evaluation.evaluate(
        request.bundle, request.images, request.labels, request.float_model, request.resize_mode, progress, log
    )
    shares = found.task.truth is Truth.CLASS  # one thing is right of an image, so a percentage counts images
    figures = {} if found.integer is None else found.integer.figures
    beside = {} if found.floating is None else found.floating.figures
    alike, test = found.alike, found.paired
    agreement = None
    if alike is not None:
        agreement = _figure(found.task.reading, alike.reading, None, found.images, share=shares)
    return Measured(
        found.images, request.images.resolve().name, found.resize_mode,
        tuple(_figure(n, v, beside.get(n), found.images, share=shares and n.endswith("_percent"))
              for n, v in figures.items() if n in found.task.columns),
        agreement, *((None,) * 3 if test is None else (test.gained, test.lost, test.p_value)),
    )  # fmt: skip


def _speed(request: CardRequest, progress: Progress) -> Speed:
    assert request.bench_seconds is not None
    settings = bench.BenchSettings(runs=RUNS, seconds=request.bench_seconds)
    found = bench.bench([request.bundle], settings, progress=progress)
    (measured,), machine = found["models"], board.board()
    x = measured["inference"]
    names = (machine.board, machine.processor, machine.machine, f"{machine.cores} cores", ", ".join(machine.features))
    return Speed(
        ", ".join(n for n in names if n), measured["runtime"], settings.threads, x["count"], x["p50"], x["p90"],
        x["p99"], measured["first_inference_ms"], measured["init_ms"], measured["peak_memory_mib"],
        tuple(found["warnings"]),
    )  # fmt: skip


def _lines(manifest: Manifest, name: str) -> tuple[str, ...]:
    command = READS.get(manifest.task, "run")
    photo = "photo.jpg" if manifest.input.channel_order else "input.npy"
    return (
        "pip install qhyvit", "qhyvit-device doctor", f"qhyvit-device info {name}",
        f"qhyvit-device {command} {name} {photo}", f"qhyvit-device bench {name}",
    )  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """A card's JSON.

    Raises:
        InputError: unreadable, damaged, or of another schema.
    """
    try:
        found = json.loads(files.read_bytes(path, "card"))
        version = found["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no card; make it again") from error
    if version != SCHEMA_VERSION:
        raise InputError(f"{path} is a card of schema {version}; make it again")
    return dict(found)


def write(card: Card, target: Path) -> tuple[Path, Path]:
    """``target`` with the endings ``.md`` and ``.json`` behind it.

    Raises:
        OutputError: one cannot be written.
    """
    paths = files.beside(target, ".md"), files.beside(target, ".json")
    files.write_text(paths[0], markdown(card))
    files.write_text(paths[1], json.dumps(card.to_json(), indent=1) + "\n")
    return paths


def _percent(figure: Figure, value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    text = evaluation.shown(figure.name, value)
    return text if low is None else f"{text} ({low:.1f} to {high:.1f})"


def _plain(value: object) -> str:
    """A text for a table's cell: others wrote it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in (head, ("---",) * len(head), *rows)] + [""]


def markdown(card: Card) -> str:
    """The card for people."""
    lines = [f"# {_plain(card.bundle)}", ""]
    if card.random_weights:
        lines += [f"**{RANDOM[0].upper()}{RANDOM[1:]}.**", ""]
    lines += [f"{_plain(card.model)} for the task {card.task}, as a TFLite file of the profile {card.profile}, made by "
              "[qhyvit](https://pypi.org/project/qhyvit/).", "", *_about(card)]  # fmt: skip
    lines += ["## How to run it", "", "```", *card.run, "```", "", "## Accuracy", "", *_right(card)]
    lines += ["## Speed and memory", "", *_fast(card), "## Operators", "", *_built(card), "## How it was made", ""]
    rows = [(k.replace("_", " "), v) for k, v in card.made.items() if k not in ("config", "versions") and v is not None]
    lines += _table(("what", "is"), rows)
    lines += ["Versions: " + ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in card.made["versions"].items()) + ".", ""]
    return "\n".join(lines)


def _about(card: Card) -> list[str]:
    size = f"{card.size_bytes / 1e6:.2f} MB"
    if card.float_size_bytes is not None:
        size += f" (float file: {card.float_size_bytes / 1e6:.2f} MB)"
    return _table(("fact", "value"), [
        ("input", card.input), *((f"output {name}", form) for name, form in card.outputs.items()), ("size", size),
        ("runs on", card.oldest_runtime), ("licence of the weights", card.licence),
    ])  # fmt: skip


def _right(card: Card) -> list[str]:
    found = card.accuracy
    lines = [f"{_plain(card.verified)}.", ""] if card.verified else []
    if found is None:
        return [*lines, "Not measured: `qhyvit card BUNDLE --images FOLDER` does it.", ""]
    rows = [(f.name.replace("_percent", " %").replace("_", " "), _percent(f, f.integer, f.low, f.high),
             _percent(f, f.floating, f.floating_low, f.floating_high)) for f in found.figures]  # fmt: skip
    if found.agreement is not None:
        a = found.agreement
        rows.append((a.name, _percent(a, a.integer, a.low, a.high), ""))
    with_bounds = any(f.low is not None for f in (*found.figures, *[a for a in (found.agreement,) if a]))
    about = f"On {found.images} images of {_plain(found.folder)}, which were not used to calibrate"
    about += ", with Wilson's interval at 95 %." if with_bounds else "."
    lines += [about, "", *_table(("figure", "integer file", "float file"), rows)]
    if found.p_value is not None:
        test = f"paired test, p = {found.p_value:.3g}"
        lines += [f"Images on which it is better than float: {found.gained}; worse: {found.lost} ({test}).", ""]
    return lines


def _fast(card: Card) -> list[str]:
    s = card.speed
    if s is None:
        return ["Not measured: `qhyvit card BUNDLE --bench 5` does it on this machine, `qhyvit bench` on a board.", ""]
    memory = "not told by the system" if s.peak_memory_mib is None else f"{s.peak_memory_mib:.0f} MiB"
    rows = [(f"{name} of {s.runs} inferences", f"{v:.2f} ms") for name, v in
            (("median", s.p50_ms), ("90th percentile", s.p90_ms), ("99th percentile", s.p99_ms))]  # fmt: skip
    rows += [("first inference", f"{s.first_ms:.2f} ms"), ("loading", f"{s.load_ms:.1f} ms"), ("peak memory", memory)]
    warned = [f"* Warning: {_plain(w)}." for w in s.warnings]
    threads = f"{s.threads} thread" + ("s" if s.threads > 1 else "")
    return [f"{_plain(s.machine)}; {threads}, {_plain(s.runtime)}.", "", *_table(("figure", "value"), rows),
            *warned, *([""] if warned else [])]  # fmt: skip


def _built(card: Card) -> list[str]:
    total, off = sum(card.ops.values()), sum(card.off_delegate.values())
    kinds = ", ".join(f"{n} {op}" for op, n in card.off_delegate.items())
    text = f"{total} ops, {card.float_tensors} float tensors. XNNPACK takes "
    return [text + ("all of them." if not off else f"all but {off}: {kinds}."), ""]
