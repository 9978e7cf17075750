"""A report as one HTML page that fetches nothing: styles, drawings and pictures are inside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from qhyvit.report.facts import BlockFacts, Examined, PageFacts, TensorFacts, ValueCounts, ranked
from qhyvit.tasks import task

WORST = 15  # tensors in the table of the most expensive ones
SPARK = (64, 20)  # units of a histogram's drawing
CHART = (720, 220, 46, 26)  # width, height, room for the axis on the left and below


@dataclass(frozen=True)
class Tile:
    """One figure at the top; ``value`` "": not measured, and ``note`` is the command that would."""

    title: str
    value: str
    note: str


def num(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def signed(value: float) -> str:
    """With its sign, whole or with one digit."""
    return f"{value:+.1f}" if isinstance(value, float) else f"{value:+d}"


def percent(share: float) -> str:
    """A share of 1."""
    return "0 %" if share == 0 else f"{100 * share:.3g} %"


def db(value: float | None) -> str:
    """Decibels, or that there is no error."""
    return "no error" if value is None else f"{value:.1f}"


def sentence(text: str) -> str:
    """With a capital."""
    return text[:1].upper() + text[1:]


def share(value: float, top: float) -> float:
    """Of the largest, by square root: what costs a hundredth is still seen."""
    return round(math.sqrt(max(value, 0.0) / top), 3) if top > 0 else 0.0


def ops(counts: Mapping[str, int]) -> str:
    """Ops by type, in words."""
    return ", ".join(f"{n} {op}" for op, n in counts.items())


def clamping(t: TensorFacts) -> str:
    """What it cost that the range had to hold zero."""
    if not t.overflow:
        return "inside the grid, nothing lost"
    lost = 20 * math.log10(max(t.resolution_loss, 1e-9))
    return f"{t.overflow:+d} codes outside: steps {t.resolution_loss:.2f} x as wide, {lost:.1f} dB"


def _outline(h: ValueCounts) -> str:
    """The histogram's steps as a path on SPARK; logarithmic heights."""
    width, height = SPARK
    top = math.log1p(max(h.counts))
    step = width / len(h.counts)
    parts, x = [f"M0 {height}"], 0.0
    for count in h.counts:
        level = height * (1 - math.log1p(count) / top) if top else height
        x += step
        parts.append(f"V{level:.3g}H{x:g}")
    return "".join(parts) + f"V{height}Z"


def _overlay(h: ValueCounts) -> Markup:
    """The grid's ends, and what lies beyond them."""
    width, height = SPARK
    span = (h.high - h.low) or 1.0
    low, high = (min(max(width * (end - h.low) / span, 0.0), float(width)) for end in h.grid)
    return Markup(
        '<rect class="out" x="0" y="0" width="{a:.3g}" height="{h}"/>'
        '<rect class="out" x="{b:.4g}" y="0" width="{c:.3g}" height="{h}"/>'
        '<path class="end" d="M{a:.3g} 0V{h}M{b:.4g} 0V{h}"/>'
    ).format(a=low, b=high, c=width - high, h=height)


def spark(h: ValueCounts, number: int) -> Markup:
    """A small histogram."""
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" preserveAspectRatio="none" aria-hidden="true">'
        '<g id="h{n}"><path class="area" d="{d}"/>{o}</g></svg>'
    ).format(w=SPARK[0], h=SPARK[1], n=number, d=_outline(h), o=_overlay(h))


def large(h: ValueCounts, number: int) -> Markup:
    """The same drawing, large."""
    return Markup(
        '<svg class="large" viewBox="0 0 {w} {h}" preserveAspectRatio="none" role="img" '
        'aria-label="histogram of the values"><use href="#h{n}"/></svg>'
    ).format(w=SPARK[0], h=SPARK[1], n=number)


def _axis(top: float) -> tuple[float, list[float]]:
    """A round upper end, and the values to mark."""
    if top <= 0:
        return 1.0, [0.0, 1.0]
    unit = 10.0 ** math.floor(math.log10(top))
    step = next(s * unit for s in (0.2, 0.5, 1.0, 2.0) if top / (s * unit) <= 5)
    marks = [step * i for i in range(math.ceil(top / step - 1e-9) + 1)]
    return marks[-1], marks


@dataclass(frozen=True)
class _Frame:
    """Where things lie in the chart of ``count`` blocks whose axis ends at ``top``."""

    count: int
    top: float

    @property
    def step(self) -> float:
        """Width of one block."""
        return (CHART[0] - CHART[2]) / self.count

    def x(self, block: float) -> float:
        """Left edge of a block."""
        return CHART[2] + self.step * block

    def y(self, value: float) -> float:
        """Height of a KL."""
        return 8 + (CHART[1] - CHART[3] - 8) * (1 - value / self.top)


def _grid_line(frame: _Frame, mark: float) -> Markup:
    y = frame.y(mark)
    return Markup(
        '<line x1="{x}" x2="{w}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        '<text x="{t}" y="{u:.1f}" text-anchor="end">{m}</text>'
    ).format(x=CHART[2], w=CHART[0], y=y, t=CHART[2] - 6, u=y + 4, m=num(mark))


def _column(frame: _Frame, i: int, b: BlockFacts) -> Markup:
    """A block's bar, and its figures where the pointer is over it."""
    tip = f"{b.label}: alone {num(b.kl)}, up to here {num(b.kl_up_to)}"
    y, step = frame.y(b.kl), frame.step
    return Markup(
        '<g><title>{tip}</title><rect x="{x:.1f}" y="0" width="{s:.1f}" height="{full}" fill="transparent"/>'
        '<rect x="{bx:.1f}" y="{y:.1f}" width="{bw:.1f}" height="{h:.1f}" rx="2" fill="var(--cost)"/></g>'
    ).format(
        tip=tip,
        x=frame.x(i),
        s=step,
        full=CHART[1] - CHART[3],
        bx=frame.x(i + 0.2),
        y=y,
        bw=step * 0.6,
        h=frame.y(0) - y,
    )


def _label(frame: _Frame, i: int, text: str) -> Markup:
    """A block's name below the chart: the first and the last one end with it."""
    anchor, x = ("start", 0.0) if i == 0 else ("end", i + 1.0) if i == frame.count - 1 else ("middle", i + 0.5)
    return Markup('<text x="{x:.1f}" y="{y}" text-anchor="{a}">{text}</text>').format(
        x=frame.x(x), y=CHART[1] - 8, a=anchor, text=text
    )


def chart(blocks: Sequence[BlockFacts]) -> Markup:
    """Bars: KL of each block alone; a line: of everything up to it."""
    top, marks = _axis(max(max(b.kl, b.kl_up_to) for b in blocks))
    frame = _Frame(len(blocks), top)
    points = " ".join(f"{frame.x(i + 0.5):.1f},{frame.y(b.kl_up_to):.1f}" for i, b in enumerate(blocks))
    line = Markup('<polyline points="{p}" fill="none" stroke="var(--data)" stroke-width="2"/>').format(p=points)
    named = sorted({0, len(blocks) // 2, len(blocks) - 1})
    parts = [
        *(_grid_line(frame, m) for m in marks), *(_column(frame, i, b) for i, b in enumerate(blocks)), line,
        *(_label(frame, i, blocks[i].label) for i in named),
    ]  # fmt: skip
    return Markup('<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="KL by block">{body}</svg>').format(
        w=CHART[0], h=CHART[1], body=Markup("").join(parts)
    )


def tiles(r: PageFacts) -> list[Tile]:
    """The figures at the top."""
    found, named = r.examined, f"qhyvit report {r.bundle}"
    labelled, agree = _labelled(r, named), ("As float", "", f"{named} --images FOLDER")
    if found is not None:
        agree = found.title.removesuffix(" %"), _read(found), f"{found.text}: {found.source}"
    times = ("", f"{named} --bench bench.json")
    if r.latency:
        row = next((row for row in r.latency if row.model == r.bundle), r.latency[0])
        times = f"{row.p50_ms:.2f} ms", f"p50 of {row.model}, {row.board}, threads: {row.threads}"
    size = f"{r.size_bytes / 1e6:.2f} MB", ""
    if r.float_size_bytes:
        size = size[0], f"float {r.float_size_bytes / 1e6:.2f} MB, {r.float_size_bytes / r.size_bytes:.1f} x"
    floats = sum(n for op, n in r.ops.items() if "FLOAT" in op)
    rows = [
        *labelled, Tile(*agree), Tile("Size", *size), Tile("Ops", str(sum(r.ops.values())), f"{floats} of them float"),
        Tile("Delegate partitions", str(r.partitions), f"builtin kernels run {ops(r.not_delegated) or 'nothing'}"),
        Tile("Latency", *times),
    ]  # fmt: skip
    if found is not None:
        rows.append(Tile(f"{sentence(r.distance)} of the two files", num(found.distance),
                         f"mean of {found.images} images, 0 is float"))  # fmt: skip
    if r.cost is not None:
        rows.append(Tile(f"{sentence(r.distance)}, simulated on the samples", num(r.cost.kl),
                         f"mean of {r.cost.images} images, 0 is float"))  # fmt: skip
    return rows


def _read(found: Examined) -> str:
    """The figure of what is kept of float."""
    return f"{found.reading:.1f} %" if found.title.endswith("%") else f"{found.reading:.4f}"


def _labelled(r: PageFacts, named: str) -> list[Tile]:
    """What labels say: the first figure, and the paired test."""
    found = r.examined
    if found is None or not found.figures:
        titles = list(task(r.task).columns.values())[:1]
        return [Tile(title.removesuffix(" %"), "", f"{named} --images LABELLED_FOLDER") for title in titles]
    test, unit = found.evaluation["paired"], " %" if found.figures[0][0].endswith("%") else ""
    title, plain, own = found.figures[0]
    split = f"better in int8 on {test['gained']} images, in float on {test['lost']}"
    return [
        Tile(title.removesuffix(" %"), f"{own}{unit}", f"float {plain}{unit}, {found.images} images"),
        Tile(f"Paired test ({test['test']})", f"p = {test['p_value']:.3g}", split),
    ]


@cache
def environment() -> jinja2.Environment:
    """Templates of this folder; everything that is put into them is escaped."""
    loader = jinja2.PackageLoader("qhyvit.report", "templates")
    made = jinja2.Environment(
        loader=loader, autoescape=lambda name: name is None or name.endswith(".html"), trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    for function in (num, signed, percent, db, sentence, share, ops, clamping, spark, large):
        made.filters[function.__name__] = function
    return made


def render(r: PageFacts) -> str:
    """The page."""
    warnings = dict.fromkeys(w for row in r.latency for w in row.warnings)
    facts: dict[str, Any] = {"r": r, "tiles": tiles(r), "warnings": warnings}
    if r.cost is not None:
        facts |= {
            "worst": ranked(r.cost.tensors)[:WORST], "chart": chart(r.cost.blocks),
            "top_block": max(b.kl for b in r.cost.blocks),
            "order": {t.name: i + 1 for i, t in enumerate(r.cost.tensors)},
        }  # fmt: skip
    return environment().get_template("report.html").render(facts)
