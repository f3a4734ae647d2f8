"""Charts as inline SVG, drawn by matplotlib, coloured by the page's CSS variables.

So they follow dark mode. Every chart has an accessible name, a title on each point, and its numbers
in a table beside it. matplotlib escapes text; ids are prefixed per chart because clip paths of two
charts on one page would collide; styles become attributes, so that the page's content
security policy need not allow inline styles. The same numbers give the same bytes.
"""

# matplotlib is partly typed:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reports.site.exports import one_line

SVG = "http://www.w3.org/2000/svg"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "report",  # ids that do not change from run to run
    "font.size": 9,
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
}
SMALLEST_PLAIN = 0.001  # `0.001` fits beside the axis, `0.00075` does not
STAND_INS = {
    "#0000c1": "var(--series)",
    "#0000c2": "var(--rule)",
    "#0000c8": "var(--line)",
    "#0000c9": "var(--muted)",
}
SERIES, RULE, GRID, TEXT = STAND_INS


@dataclass(frozen=True, slots=True)
class Chart:
    """One small chart: a line, perhaps with a band and a dashed rule."""

    title: str
    """Its name, e.g. `Sound`; shown by the page, not in the drawing."""
    x: Sequence[float]
    y: Sequence[float | None]
    """None leaves a gap."""
    low: Sequence[float] = ()
    """Lower edge of the band; empty: no band."""
    high: Sequence[float] = ()
    rule: float | None = None
    """Height of a dashed rule, e.g. the paper's value."""
    rule_label: str = ""
    x_label: str = "step"
    y_label: str = ""
    y_limits: tuple[float, float] | None = None
    """Shared by small multiples."""
    point_titles: Sequence[str] = field(default=())
    """Text on each point, shown by the browser on hover."""
    marked_x: float | None = None
    """Position of the point drawn filled: the declared step."""


def draw(chart: Chart, *, prefix: str) -> str:
    """An `<svg>` element as text.

    Args:
        chart: What to draw.
        prefix: Prefix of every id in it; unique on the page, letters, digits and `-`.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(3.5, 2.2))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.145, 0.19, 0.825, 0.76))
        _plot(axes, chart)
        _style(axes, chart)
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _inline(text.getvalue(), chart, prefix=prefix)


def _plot(axes: Axes, chart: Chart) -> None:
    values = [float("nan") if value is None else value for value in chart.y]
    if len(chart.low):
        axes.fill_between(chart.x, chart.low, chart.high, color=SERIES, alpha=0.16, linewidth=0)
    many = len(chart.x) > 30
    width = 1.1 if many else 1.7
    (line,) = axes.plot(chart.x, values, color=SERIES, linewidth=width, clip_on=False)
    if not many:
        line.set_marker("o")
        line.set_markersize(4)
        line.set_markerfacecolor("#ffffff")
        line.set_gid("points")
    if chart.marked_x is not None and chart.marked_x in chart.x:
        height = values[list(chart.x).index(chart.marked_x)]
        axes.plot(
            [chart.marked_x], [height], marker="D", markersize=6.5, color=SERIES, linestyle="none"
        )
    if chart.rule is not None:
        axes.axhline(chart.rule, color=RULE, linewidth=1.2, linestyle=(0, (5, 3)))
        axes.annotate(
            _no_mathtext(chart.rule_label),
            (1, chart.rule),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            color=RULE,
            fontsize=8.5,
        )


def _style(axes: Axes, chart: Chart) -> None:
    axes.set_xlabel(_no_mathtext(chart.x_label), color=TEXT, labelpad=2)
    axes.set_ylabel(_no_mathtext(chart.y_label), color=TEXT, labelpad=3)
    axes.tick_params(colors=TEXT, length=3, pad=2)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick_text))
    for spine in axes.spines.values():
        spine.set_color(GRID)
    if chart.y_limits:
        axes.set_ylim(*chart.y_limits)


def _tick_text(value: float, _position: int) -> str:
    """A number as a tick of at most six characters: `0.75`, `7.5e-4`, never an offset."""
    if 0 < abs(value) < SMALLEST_PLAIN:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value:.6g}"


def _no_mathtext(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return one_line(text).replace("$", r"\$")


def _inline(document: str, chart: Chart, *, prefix: str) -> str:
    """Matplotlib's document as an element for the page, with our colours and ids of its own."""
    ET.register_namespace("", SVG)
    root = ET.fromstring(document[document.index("<svg") :])  # noqa: S314  made by matplotlib, two lines above
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in {f"{{{SVG}}}metadata", f"{{{SVG}}}style"}:
                parent.remove(child)
    for element in root.iter():
        _clean(element, prefix)
    _add_point_titles(root, chart.point_titles, prefix)
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    root.set("role", "img")
    root.set("aria-label", one_line(f"{chart.title}: line chart, numbers below"))
    text = ET.tostring(root, encoding="unicode")
    for stand_in, variable in STAND_INS.items():
        text = text.replace(stand_in, variable)
    return text.replace("#ffffff", "var(--page)")


def _clean(element: ET.Element, prefix: str) -> None:
    """Prefix ids and references; turn the style into attributes that a strict policy allows."""
    if "id" in element.attrib:
        element.set("id", f"{prefix}-{element.attrib['id']}")
    href = element.attrib.pop(XLINK_HREF, None)
    if href:
        element.set("href", f"#{prefix}-{href.removeprefix('#')}")
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            size = re.search(r"([\d.]+)px", value)
            element.set("font-size", size.group(1) if size else "9")
        elif name and name != "font-family":
            element.set(name, value)
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("url(#", f"url(#{prefix}-"))


def _add_point_titles(root: ET.Element, titles: Sequence[str], prefix: str) -> None:
    group = next((one for one in root.iter() if one.get("id") == f"{prefix}-points"), None)
    if group is None or not titles:
        return
    for use, title in zip(group.iter(f"{{{SVG}}}use"), titles, strict=False):
        ET.SubElement(use, f"{{{SVG}}}title").text = one_line(title)
