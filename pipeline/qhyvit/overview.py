"""One page of several bundles, of their cards: a table, and fronts of how good they are against what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qhyvit import card, files
from qhyvit.card import Card, Figure
from qhyvit.errors import InputError, UsageError
from qhyvit.evaluation import shown
from qhyvit.progress import Log, Progress, silent
from qhyvit.report import latency
from qhyvit.report.front import Chart, Point, drawn
from qhyvit.report.page import environment
from qhyvit.tasks import task

Times = Mapping[str, Mapping[str, float]]  # where they were measured -> name of the bundle -> p50, milliseconds


@dataclass(frozen=True)
class Shown:
    """One bundle of a page: its name there, why there is none (``failed``), its card, and where that lies ("")."""

    name: str
    failed: str
    card: Card | None
    link: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "failed": self.failed, "card": None if self.card is None else self.card.to_json()}


@dataclass(frozen=True)
class OverviewRequest:
    """What a page of several bundles is made of.

    Args:
        bundles: two or more folders.
        images: to measure all of them on; None: what their cards say.
        labels, resize_mode, class_map: see :func:`qhyvit.evaluation.evaluate`.
        bench: file of times; None: those of the cards.
    """

    bundles: tuple[Path, ...]
    images: Path | None = None
    labels: Path | None = None
    resize_mode: str | None = None
    class_map: tuple[int, ...] | None = None
    bench: Path | None = None


@dataclass(frozen=True)
class Overview:
    """All that the page shows."""

    bundles: tuple[Shown, ...]
    times: Times

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        times = {where: dict(found) for where, found in self.times.items()}
        return {"bundles": [each.to_json() for each in self.bundles], "p50_ms": times}


def overview(request: OverviewRequest, progress: Progress = silent, log: Log = silent) -> Overview:
    """Everything about the bundles that is known, or that ``images`` tell.

    A card that lies beside a bundle is used where it is of this very bundle; its figures where they follow from these
    images, these files and this code.

    Raises:
        QhyvitError: a bundle twice, one that is none, images that cannot be measured on, a bench of other models.
    """
    names = _names(request.bundles)
    times = None if request.bench is None else _times(request.bench, request.bundles, names)
    digest = ""
    if request.images is not None:
        digest = card.images_digest(request.images, request.labels, request.class_map)
    cards = [_card(path, name, request, digest, progress, log)
             for path, name in zip(request.bundles, names, strict=True)]  # fmt: skip
    found = tuple(Shown(name, "", about) for name, about in zip(names, cards, strict=True))
    return Overview(found, times_of_cards(found) if times is None else times)


def _names(bundles: Sequence[Path]) -> list[str]:
    """Names of the folders where they differ, else their paths."""
    places = [path.resolve() for path in bundles]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise UsageError(f"{bundles[i]} is given twice")
    short = [place.name for place in places]
    return short if len(set(short)) == len(short) else [str(path) for path in bundles]


def _times(bench: Path, bundles: Sequence[Path], names: Sequence[str]) -> Times:
    """Times of a bench file, by board and threads.

    Raises:
        InputError: it is none, or holds times of other models only.
    """
    known = {word: name for path, name in zip(bundles, names, strict=True) for word in (path.resolve().name, str(path))}
    found: dict[str, dict[str, float]] = {}
    rows = latency.read(bench)
    for row in rows:
        if row.model in known:
            where = f"{row.board}, {row.threads} thread{'s' if row.threads > 1 else ''}"
            found.setdefault(where, {}).setdefault(known[row.model], row.p50_ms)
    if not found:
        others = ", ".join(dict.fromkeys(row.model for row in rows)) or "nothing"
        raise InputError(f"{bench} holds no time of these bundles; it has {others}")
    return found


def times_of_cards(bundles: Sequence[Shown]) -> Times:
    """Times that cards have, by machine and threads."""
    found: dict[str, dict[str, float]] = {}
    for each in bundles:
        if each.card is not None and each.card.speed is not None:
            speed = each.card.speed
            where = f"{speed.machine}, {speed.threads} thread{'s' if speed.threads > 1 else ''}"
            found.setdefault(where, {})[each.name] = speed.p50_ms
    return found


def _card(bundle: Path, name: str, request: OverviewRequest, digest: str, progress: Progress, log: Log) -> Card:
    """What is known of a bundle: by the card beside it, or found out; ``digest`` of the images."""
    asked = card.CardRequest(
        bundle, request.images, request.labels, None, request.resize_mode, class_map=request.class_map
    )
    kept, path = None, files.beside(bundle, ".card.json")
    if path.is_file():
        try:
            kept = card.read(path)
        except InputError as error:
            log(f"{error}; not used")
    if kept is not None and kept.bundle_sha256 != card.bundle_digest(bundle):
        log(f"{path} is of another bundle; not used")
        kept = None
    if kept is not None and (
        request.images is None or (kept.accuracy is not None and kept.accuracy.key == card.key_of(asked, digest))
    ):
        log(f"{name}: figures of {path}")
        return kept
    made = card.make(asked, lambda what, share: progress(f"{name}: {what}", share), log)
    return made if kept is None else replace(made, speed=kept.speed, licence=kept.licence)


def _cell(figure: Figure | None, *, floating: bool = False) -> str:
    """A figure with its interval; "" is not known."""
    if figure is None:
        return ""
    value, low, high = figure.integer, figure.low, figure.high
    if floating:
        value, low, high = figure.floating, figure.floating_low, figure.floating_high  # type: ignore[assignment]
    if value is None:
        return ""
    return shown(figure.name, value) + ("" if low is None else f" ({low:.1f} to {high:.1f})")


def _title(about: Card, figure: Figure) -> str:
    """What a figure is called."""
    return task(about.task).columns.get(figure.name, figure.name)


def _first(about: Card) -> Figure | None:
    """The figure that labels give first: what the task reads."""
    return about.accuracy.figures[0] if about.accuracy is not None and about.accuracy.figures else None


def _kept(about: Card) -> str:
    """How much of float the file keeps, with the name of the figure where that is no share."""
    right = about.accuracy
    if right is None or right.agreement is None:
        return ""
    name = right.agreement.name
    return _cell(right.agreement) + ("" if name.endswith("%") else f" {name}") + task(about.task).worst_of(right.each)


def row(each: Shown, times: Times) -> dict[str, str]:
    """What the page shows of a bundle, by column; "" is not known."""
    found = each.card
    if found is None:
        return {}
    right, fast, first = found.accuracy, found.speed, _first(found)
    places = {where: "p50 ms" if len(times) == 1 else f"p50 ms, {where}" for where in times}
    share = found.verified_share
    return {
        "task": found.task, "figure": _title(found, first) if first else "", "integer": _cell(first),
        "float": _cell(first, floating=True), "agreement": _kept(found), "MB": f"{found.size_bytes / 1e6:.2f}",
        **{title: f"{times[where][each.name]:.2f}" if each.name in times[where] else ""
           for where, title in places.items()},
        "off XNNPACK": str(sum(found.off_delegate.values())),
        "proven for": ", ".join(found.proven) or "not recorded",
        "images": f"{right.images} of {right.folder}" if right else "",
        "kept in verification": "" if share is None else f"{100 * share:.2f} %",
        "float MB": "" if found.float_size_bytes is None else f"{found.float_size_bytes / 1e6:.2f}",
        "p90": f"{fast.p90_ms:.2f}" if fast else "", "p99": f"{fast.p99_ms:.2f}" if fast else "",
        "first": f"{fast.first_ms:.2f}" if fast else "",
        "peak MiB": f"{fast.peak_memory_mib:.0f}" if fast and fast.peak_memory_mib is not None else "",
        "ops": str(sum(found.ops.values())), "model": found.model, "input": found.input, "licence": found.licence,
    }  # fmt: skip


Reading = Callable[[Card], tuple[tuple[str, str], Figure] | None]  # ((title, which images), figure), None: not known


def _right(about: Card) -> tuple[tuple[str, str], Figure] | None:
    first = _first(about)
    return None if first is None or about.accuracy is None else (
        (_title(about, first), about.accuracy.images_sha256), first)  # fmt: skip


def _alike(about: Card) -> tuple[tuple[str, str], Figure] | None:
    right = about.accuracy
    return None if right is None or right.agreement is None else (
        (right.agreement.name, right.images_sha256), right.agreement)  # fmt: skip


def _verified(about: Card) -> tuple[tuple[str, str], Figure] | None:
    title, share = f"kept of float in the build's verification %, {about.task}", about.verified_share
    return None if share is None else ((title, ""), Figure(title, 100 * share, *(None,) * 5))


READINGS: tuple[Reading, ...] = (_right, _alike, _verified)  # the first that two bundles have is drawn


def charts(bundles: Sequence[Shown], times: Times) -> list[Chart]:
    """Fronts of figures that compare, those of one name and the same images: against size, and each machine's times."""
    for reading in READINGS:
        groups: dict[tuple[str, str], list[tuple[Shown, Card, Figure]]] = {}
        for each in bundles:
            if each.card is not None and (found := reading(each.card)) is not None:
                groups.setdefault(found[0], []).append((each, each.card, found[1]))
        drawable = [(key[0], group) for key, group in groups.items() if len(group) > 1]
        if drawable:
            return [chart for title, group in drawable for chart in _charts(title, group, times)]
    return []


def _charts(title: str, group: Sequence[tuple[Shown, Card, Figure]], times: Times) -> list[Chart]:
    less = any(figure.name in task(about.task).errors for _, about, figure in group)
    sizes = tuple(Point(s.name, about.size_bytes / 1e6, f.integer, f.low, f.high) for s, about, f in group)
    found = [Chart(f"{title} against size", "file, MB", title, sizes, less)]
    for where, known in times.items():
        timed = tuple(Point(s.name, known[s.name], f.integer, f.low, f.high) for s, _, f in group if s.name in known)
        if len(timed) > 1:
            told = "" if len(times) == 1 else f", {where}"
            found.append(Chart(f"{title} against time{told}", "one inference, ms", title, timed, less))
    return found


def render(title: str, bundles: Sequence[Shown], times: Times) -> str:
    """One page that fetches nothing: fronts and a table, on a phone a block for each bundle."""
    rows = [(each, row(each, times)) for each in bundles]
    columns = list(dict.fromkeys(name for _, cells in rows for name in cells))
    sets = {each.card.accuracy.images_sha256 for each in bundles if each.card and each.card.accuracy}
    about = {
        "title": title, "rows": rows, "columns": [c for c in columns if any(cells.get(c) for _, cells in rows)],
        "places": list(times), "charts": [(chart, drawn(chart)) for chart in charts(bundles, times)],
        "proofs": {name: proof for each in bundles if each.card for name, proof in each.card.proven.items()},
        "several_sets": len(sets) > 1,
    }  # fmt: skip
    return environment().get_template("overview.html").render(about)
