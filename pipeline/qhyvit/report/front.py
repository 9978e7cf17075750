"""A front as an inline SVG: how good bundles are against what they cost; a line joins those that no other one beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

WIDTH, HEIGHT = 400, 290  # of the drawing; about the pixels that a phone has, so that its text is read there as well
LEFT, RIGHT, TOP, BOTTOM = 50, 14, 14, 42  # room around the plot
LETTER, LINE, LONGEST = 5.9, 13.0, 26  # width of a letter, height of a line; letters of a name that are shown
ROOM = 0.12  # of the range, left free at both ends
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
PLACES = ((8, 4, "start"), (-8, 4, "end"), (0, -9, "middle"), (0, 17, "middle"),
          (7, -7, "start"), (-7, -7, "end"), (7, 15, "start"), (-7, 15, "end"),
          (0, -22, "middle"), (0, 30, "middle"), (4, -22, "start"), (-4, -22, "end"), (4, 30, "start"), (-4, 30, "end"))
DOT, NAME, STROKE, FAR = 50.0, 10.0, 1.0, 2.0  # how bad it is to hide a dot, a name, a line; a unit of distance


@dataclass(frozen=True)
class Point:
    """One bundle: its cost ``x``, its figure ``y``, and the ends of the figure's interval where it has one."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """What is drawn; ``less``: lower figures are better. ``title`` says both axes in words."""

    title: str
    x: str
    y: str
    points: tuple[Point, ...]
    less: bool = False


def best(points: Sequence[Point], *, less: bool = False) -> list[Point]:
    """Those that no other point beats, by cost: none costs as little and is better, or less and is as good."""
    sign = -1 if less else 1
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -sign * p.y)):
        if not found or sign * point.y > sign * found[-1].y or (point.x, point.y) == (found[-1].x, found[-1].y):
            found.append(point)
    return found


@dataclass(frozen=True)
class _Axis:
    """Values ``low`` to ``high`` lie at ``start`` to ``stop``."""

    low: float
    high: float
    start: float
    stop: float

    @staticmethod
    def of(values: Sequence[float], start: float, stop: float) -> _Axis:
        """An axis that holds ``values``, with some room."""
        low, high = min(values), max(values)
        room = ROOM * (high - low) or abs(high) / 10 or 1.0
        return _Axis(low - room, high + room, start, stop)

    def at(self, value: float) -> float:
        """Where a value lies."""
        return self.start + (self.stop - self.start) * (value - self.low) / (self.high - self.low)

    @property
    def marks(self) -> list[tuple[float, str]]:
        """Round values, about four, and how they are written."""
        rough = (self.high - self.low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(s * unit for s in STEPS if s * unit >= rough * (1 - 1e-9))
        digits = max(0, -math.floor(math.log10(step) + 1e-9)) + (round(step / unit, 1) == 2.5)
        first = math.ceil(self.low / step - 1e-9)
        count = math.floor(self.high / step + 1e-9) - first + 1
        return [(step * (first + i), f"{step * (first + i):.{digits}f}") for i in range(count)]


@dataclass(frozen=True)
class _Box:
    """A part of the drawing that is taken; ``weight``: how bad it is to hide it."""

    left: float
    top: float
    right: float
    bottom: float
    weight: float = NAME

    def hides(self, other: _Box) -> float:
        """The area that both have, by the other's weight."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return other.weight * max(width, 0.0) * max(height, 0.0)

    @property
    def outside(self) -> float:
        """How far it reaches out of the drawing, times its height."""
        return (max(0.0, LEFT - self.left) + max(0.0, self.right - WIDTH) + max(0.0, -self.top)) * LINE


def _along(corners: Sequence[tuple[float, float]]) -> list[_Box]:
    """A line from corner to corner as boxes, one every few units of its length."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        count = max(1, round(math.hypot(x1 - x0, y1 - y0) / 6))
        places = [(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count) for i in range(count)]
        found += [_Box(x - 3, y - 2, x + 3, y + 2, STROKE) for x, y in places]
    return found


def _label(name: str, x: float, y: float, taken: list[_Box]) -> Markup:
    """A name beside its point, where it hides least; what it takes is added to ``taken``."""
    shown = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    width = LETTER * len(shown)
    tries = []
    for dx, dy, anchor in PLACES:
        left = x + dx - {"start": 0.0, "end": width, "middle": width / 2}[anchor]
        tries.append((_Box(left, y + dy - LINE + 3, left + width, y + dy + 3), dx, dy, anchor))
    box, dx, dy, anchor = min(
        tries, key=lambda t: DOT * t[0].outside + sum(t[0].hides(b) for b in taken) + FAR * abs(t[2])
    )
    taken.append(box)
    return Markup('<text class="name" x="{x:.1f}" y="{y:.1f}" text-anchor="{a}">{t}</text>').format(
        x=x + dx, y=y + dy, a=anchor, t=shown
    )


def _grid(x: _Axis, y: _Axis, chart: Chart) -> Markup:
    """Lines at round values, and what the axes are."""
    parts = [
        Markup('<line x1="{a}" x2="{b}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
               '<text x="{t}" y="{u:.1f}" text-anchor="end">{m}</text>').format(
            a=LEFT, b=WIDTH - RIGHT, y=y.at(v), t=LEFT - 6, u=y.at(v) + 4, m=mark) for v, mark in y.marks
    ]  # fmt: skip
    parts += [
        Markup('<line x1="{x:.1f}" x2="{x:.1f}" y1="{a}" y2="{b}" class="grid"/>'
               '<text x="{x:.1f}" y="{t}" text-anchor="middle">{m}</text>').format(
            x=x.at(v), a=TOP, b=HEIGHT - BOTTOM, t=HEIGHT - BOTTOM + 15, m=mark) for v, mark in x.marks
    ]  # fmt: skip
    parts.append(Markup('<text x="{x}" y="{y}" text-anchor="end">{t}</text>').format(
        x=WIDTH - RIGHT, y=HEIGHT - 8, t=chart.x))  # fmt: skip
    return Markup("").join(parts)


def _point(point: Point, x: _Axis, y: _Axis, *, on_front: bool) -> Markup:
    """A dot with its interval, and its figures where the pointer is over it."""
    line = Markup("")
    if point.low is not None and point.high is not None:
        line = Markup('<line x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}" class="interval"/>').format(
            x=x.at(point.x), a=y.at(point.low), b=y.at(point.high)
        )
    return Markup(
        '<g class="{c}" data-name="{n}" data-x="{vx}" data-y="{vy}"><title>{n}: {vx}, {vy}</title>{line}'
        '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/></g>'
    ).format(
        c="best" if on_front else "other", n=point.name, vx=f"{point.x:g}", vy=f"{point.y:.6g}", line=line,
        x=x.at(point.x), y=y.at(point.y),
    )  # fmt: skip


def drawn(chart: Chart) -> Markup:
    """The chart of two points or more."""
    points = chart.points
    ends = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    x = _Axis.of([p.x for p in points], LEFT, WIDTH - RIGHT)
    y = _Axis.of(ends, HEIGHT - BOTTOM, TOP)
    front = best(points, less=chart.less)
    path = " ".join(f"{x.at(p.x):.1f},{y.at(p.y):.1f}" for p in front)
    taken = [_Box(x.at(p.x) - 5, y.at(p.y) - 5, x.at(p.x) + 5, y.at(p.y) + 5, DOT) for p in points]
    taken += [_Box(x.at(p.x) - 2, y.at(p.high), x.at(p.x) + 2, y.at(p.low), STROKE)
              for p in points if p.low is not None and p.high is not None]  # fmt: skip
    taken += _along([(x.at(p.x), y.at(p.y)) for p in front])
    parts = [
        _grid(x, y, chart), Markup('<polyline class="line" points="{p}"/>').format(p=path),
        *(_point(p, x, y, on_front=p in front) for p in points),
        *(_label(p.name, x.at(p.x), y.at(p.y), taken) for p in points),
    ]  # fmt: skip
    return Markup('<svg class="front" viewBox="0 0 {w} {h}" role="img" aria-label="{t}">{body}</svg>').format(
        w=WIDTH, h=HEIGHT, t=chart.title, body=Markup("").join(parts)
    )
