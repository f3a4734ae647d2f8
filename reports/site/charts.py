"""Charts as inline SVG, drawn by hand at their true size and coloured by classes of report.css.

So they follow dark mode, text is never scaled, and there is neither id nor style in them: nothing
collides on a page, and its content security policy need not allow inline styles. A series wears the
classes of its training: hue is the method, mark the variant. Text is escaped here. The same numbers
give the same bytes.
"""

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

from markupsafe import escape

# In a name they would break a line of a file or a drawing.
CONTROL_CHARACTERS = dict.fromkeys((*range(32), *range(127, 160), 8232, 8233), " ")
SMALLEST_PLAIN = 0.001  # `0.001` fits beside the axis, `0.00075` does not
MOST_DOTS = 30  # points of a curve that are marked one by one; of more, those that no line reaches
# px: between labels at the margin, between the margin's marks, between ticks, room for the y axis
LABEL_GAP, COLUMN, TICK_GAP, LEFT, TOP, BOTTOM = 15, 11, 30, 38, 8, 22
# Paths of radius 1 around the point; a mark is drawn in the colour of its series.
MARKS: dict[str, Sequence[tuple[float, float]]] = {
    "triangle": ((0, -1.2), (1.15, 0.8), (-1.15, 0.8)),
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "circle": (),
}


class Look(NamedTuple):
    """How a training or model is drawn wherever it stands."""

    name: str
    """E.g. `SFT, LoRA`."""
    css: str
    """Classes: of its colour, and that by which it is switched off."""
    mark: str
    """One of MARKS."""


GREY = Look("", "other", "circle")  # of a model that was not trained here


class Result(NamedTuple):
    """What stands in the margin: the value at the step to quote, its interval, the paper's."""

    value: float
    low: float
    high: float
    paper: float | None = None


class Series(NamedTuple):
    """One curve."""

    look: Look
    x: Sequence[float]
    y: Sequence[float | None]
    """None leaves a gap."""
    band: Sequence[tuple[float, float]] = ()
    """Lower and upper edge at each point; empty: none."""
    lead: float | None = None
    """Where the point is drawn large: the step to quote."""
    result: Result | None = None
    label: str = ""
    """At the margin."""
    paper_label: str = ""
    """Beside the paper's dash; empty: none."""


class Panel(NamedTuple):
    """Curves on one scale."""

    title: str
    note: str
    series: Sequence[Series]
    y_limits: tuple[float, float]
    marked_x: Sequence[float] = ()
    """Ticks of the x axis, each with a read-out from three on; empty: round numbers."""


class _Frame(NamedTuple):
    """Where values stand in a drawing."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    """Up to the end of the curves."""
    height: float

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM

    def x_at(self, x: float) -> float:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        return LEFT + across * (self.width - LEFT)

    def y_at(self, y: float) -> float:
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return TOP + (self.bottom - TOP) * (1 - up)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.x_at(x), self.y_at(y)


def one_line(text: str) -> str:
    """Text without line breaks and control characters."""
    return text.translate(CONTROL_CHARACTERS)


def draw(panel: Panel, *, width: int, height: int, css: str = "", margin: int = 54) -> str:
    """An `<svg>` element, sizes in px, labels in the margin at the right.

    Its class, e.g. `wide`, lets the page show it or not.
    """
    xs = [x for series in panel.series for x in series.x] or [0.0, 1.0]
    columns = sum(series.result is not None for series in panel.series)
    end = width - margin - COLUMN * (columns + 0.7 if columns else 0)
    frame = _Frame((min(xs), max(xs)), panel.y_limits, end, height)
    parts = [_axes(frame, panel.marked_x, width - margin)]
    labels: list[tuple[float, str, str]] = []
    for column, series in enumerate(panel.series):
        body, label_y = _curve(frame, series, end + 2 + COLUMN * (column + 1))
        parts.append(f'<g class="s {series.look.css}">{body}</g>')
        labels += [(label_y, series.look.css, series.label)] if series.label else []
        if series.paper_label and series.result and series.result.paper is not None:
            labels.append((frame.y_at(series.result.paper), "other", series.paper_label))
    places = spread([label_y for label_y, _, _ in labels], LABEL_GAP, TOP + 4, frame.bottom)
    for place, (_, classes, label) in zip(places, labels, strict=True):
        text = _text(width - margin + 6, place + 4, label, "label")
        parts.append(f'<g class="s {classes}">{text}</g>')
    parts += _readouts(frame, panel)
    name = f"{escape(one_line(panel.title))}: line chart, numbers in the table"
    return (
        f'<svg class="{css}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{name}">{"".join(parts)}</svg>'
    )


def _axes(frame: _Frame, marked: Sequence[float], right: float) -> str:
    words: list[str] = []
    for tick in ticks(*frame.y):
        y = frame.y_at(tick)
        words.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{right:g}"/>')
        words.append(_text(LEFT - 6, y + 4, tick_text(tick), "tick", "end"))
    places = [(value, frame.x_at(value)) for value in marked or ticks(*frame.x)]
    gap = min((after - before for (_, before), (_, after) in pairwise(places)), default=TICK_GAP)
    for value, x in places[:: math.ceil(TICK_GAP / max(gap, 1))]:
        words.append(f'<path class="grid base" d="M{x:.1f} {frame.bottom:g}v4"/>')
        words.append(_text(x, frame.bottom + 16, tick_text(value), "tick", "middle"))
    return "".join(words)


def _curve(frame: _Frame, series: Series, margin_x: float) -> tuple[str, float]:
    """Its drawing, and the height at which its label belongs."""
    runs: list[list[tuple[float, float]]] = [[]]  # of points between gaps
    for x, y in zip(series.x, series.y, strict=True):
        if y is None:
            runs.append([])
        else:
            runs[-1].append(frame.at(x, y))
    seen = [point for run in runs for point in run]
    words: list[str] = []
    if series.band:
        ends = list(zip(series.x, series.band, strict=True))
        edge = [frame.at(x, high) for x, (_, high) in ends]
        edge += [frame.at(x, low) for x, (low, _) in reversed(ends)]
        words.append(f'<path class="band" d="{_path(edge)}z"/>')
    words.append(f'<path class="line" d="{"".join(map(_path, runs))}"/>')
    # Of many points those that no line reaches.
    dotted = seen if len(seen) <= MOST_DOTS else [run[0] for run in runs if len(run) == 1]
    words.append(marks(series.look, dotted, 2.2))
    points = zip(series.x, series.y, strict=True)
    led = [frame.at(x, y) for x, y in points if x == series.lead and y is not None]
    words.append(marks(series.look, led, 5))
    label_y = seen[-1][1] if seen else frame.bottom
    if series.result:
        label_y, low, high = map(frame.y_at, series.result[:3])
        words.append(f'<path class="whisk" d="M{margin_x:.1f} {low:.1f}V{high:.1f}"/>')
        words.append(marks(series.look, [(margin_x, label_y)], 4))
        if series.result.paper is not None:
            start = f"M{margin_x - 6:.1f} {frame.y_at(series.result.paper):.1f}"
            words.append(f'<path class="paper" d="{start}h12"/>')
    return "".join(words), label_y


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _readouts(frame: _Frame, panel: Panel) -> list[str]:
    """A strip for each marked x: its line and numbers show while the pointer is on it."""
    half = (frame.width - LEFT) / 2 / max(len(panel.marked_x) - 1, 1)
    found: list[str] = []
    for marked in panel.marked_x if len(panel.marked_x) > 2 else ():
        here = [
            (frame.y_at(y) - 9, series.look.css, f"{y:.1f}")
            for series in panel.series
            for x, y in zip(series.x, series.y, strict=True)
            if x == marked and y is not None
        ]
        x = frame.x_at(marked)
        side, anchor = (-7, "end") if x > (LEFT + frame.width) / 2 else (7, "start")
        heights = spread([height for height, _, _ in here], 14, TOP, frame.bottom)
        numbers = "".join(
            f'<g class="{css}">{_text(x + side, height + 4, number, "label halo", anchor)}</g>'
            for height, (_, css, number) in zip(heights, here, strict=True)
        )
        found.append(
            f'<g class="hit"><rect x="{x - half:.1f}" y="{TOP}" width="{2 * half:.1f}" '
            f'height="{frame.bottom - TOP:g}"/><g class="read"><path class="grid base" '
            f'd="M{x:.1f} {TOP}V{frame.bottom:g}"/>{numbers}</g></g>'
        )
    return found


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, at least `gap` apart and within bounds, in the order given.

    Neighbours that overlap move as one block around their mean; then the bounds push back.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[list[float]] = []  # of wanted places, less the room of those before
    for rank, index in enumerate(order):
        blocks.append([wanted[index] - gap * rank])
        while len(blocks) > 1 and fmean(blocks[-2]) > fmean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    levels = [fmean(block) for block in blocks for _ in block]
    last = high - gap * (len(wanted) - 1)
    places = {
        index: min(max(level, low), last) + gap * rank
        for rank, (index, level) in enumerate(zip(order, levels, strict=True))
    }
    return [places[index] for index in range(len(wanted))]


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round numbers between two ends, `most` and one at most."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * index for index in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A number in few characters: `0.75`, `7.5e-4`, `1.05e-6`, `6.2e10`, never an offset."""
    size = abs(value)
    text = f"{size:.5e}" if 0 < size < SMALLEST_PLAIN else f"{size:.6g}"
    return ("\u2212" if value < 0 else "") + re.sub(r"\.?0*e\+?(-?)0*", r"e\1", text)


def marks(look: Look, points: Sequence[tuple[float, float]], size: float) -> str:
    """Marks of one look at the given points as a path."""
    corners = [(size * x, size * y) for x, y in MARKS[look.mark]]
    arc = f"a{size:g} {size:g} 0 1 0 "
    path = "".join(
        f"{_path([(x + dx, y + dy) for dx, dy in corners])}z"
        if corners
        else f"M{x:.1f} {y:.1f}m{-size:g} 0{arc}{2 * size:g} 0{arc}{-2 * size:g} 0z"
        for x, y in points
    )
    return f'<path class="dot" d="{path}"/>' if path else ""


def _text(x: float, y: float, text: str, css: str, anchor: str = "start") -> str:
    words = escape(one_line(text))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{css}">{words}</text>'
