"""What every figure is drawn with: colours, the style, inline SVG, labels that hide nothing."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]

COLOURS = {"pass": "#1a7f37", "fail": "#c62828", "inconclusive": "#b26a00", "baseline": "#7b3fa0"}
COLOURS |= {"failed": "#c62828", "unavailable": "#6b7280"}
SHAPES = {"pass": "o", "fail": "X", "inconclusive": "^", "baseline": "D"}  # so that colour is not all that tells
BASELINE, CANDIDATE = "#8a919c", "#2563a8"
# Where a point's label may stand, in points from it: near before far, the last if all are taken.
PLACES = [(dx, dy) for d in (10, 24, 38, 52) for dx in (8, -8) for dy in (d, -d)]
STYLE = {
    "font.size": 9,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa1ab",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": "#e3e6ea",
}


@contextmanager
def figure(
    name: str, width: float, height: float, margins: Mapping[str, float] | None = None
) -> Iterator[tuple[Figure, list[str]]]:
    """Yield a figure of that many inches and a list, to which its SVG is appended when the block ends.

    margins: shares of it at which its one plot ends; without, they are found from the text, in twice the time.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # The salt makes the ids repeat from run to run and differ between the figures of one page.
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure, out = Figure(figsize=(width, height), layout=None if margins else "constrained"), list[str]()
        if margins:
            figure.subplots_adjust(**margins)
        yield figure, out
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        out.append(_inline(file.getvalue(), name))


def _inline(svg: str, name: str) -> str:
    """Reduce an SVG to what HTML takes: no XML head, metadata, namespace or page-wide style, sized by the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<style .*?</style>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", svg)
    head, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', head)
    return f'<svg {view[0] if view else ""} role="img" aria-label="{html.escape(name)}">{rest}'


def style_axes(axes: Axes, grid: Literal["x", "both"]) -> None:
    """Style axes as horizontal rows without ticks of their own ("x"), or with a plain grid ("both")."""
    axes.set_axisbelow(True)
    axes.grid(axis=grid)
    if grid == "x":
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]], taken: list[Box]) -> None:
    """Label each point at the first place around it where the label hides no point, bar or other label."""
    frame = axes.get_window_extent().extents
    for x, y, text in points:
        for offset in PLACES:
            label = _place(axes, (x, y), text, offset)
            box = _text_box(label)
            inside = frame[0] <= box[0] and box[2] <= frame[2] and frame[1] <= box[1] and box[3] <= frame[3]
            if offset == PLACES[-1] or (inside and not any(_overlap(box, other) for other in taken)):
                taken.append(box)
                break
            label.remove()


def _place(axes: Axes, point: tuple[float, float], text: str, offset: tuple[float, float]) -> Any:
    """Put a label at that offset, with a leader line to a point that is not beside it."""
    line = {"arrowstyle": "-", "color": BASELINE, "lw": 0.6, "shrinkA": 0, "shrinkB": 4}
    label = axes.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        ha="left" if offset[0] > 0 else "right",
        va="center",
        fontsize=8.5,
        arrowprops=line if abs(offset[1]) > PLACES[0][1] else None,
    )
    label.set_in_layout(False)
    return label


def pixels(axes: Axes, bar: Box) -> Box:
    """Return the box in pixels where a bar is drawn, with room for its ends and for the point."""
    (x0, y0), (x1, y1) = axes.transData.transform([bar[:2], bar[2:]])
    return x0 - 6, y0 - 6, x1 + 6, y1 + 6


def _text_box(annotation: Any) -> Box:
    """Return the box in pixels of an annotation's text, without its leader line."""
    from matplotlib.text import Text

    annotation.get_window_extent()  # puts the text in its place, which Text's own does not
    x0, y0, x1, y1 = Text.get_window_extent(annotation).extents
    return x0, y0, x1, y1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
