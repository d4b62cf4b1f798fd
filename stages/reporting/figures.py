"""Figures of summary entries as inline SVG: no scripts, no links, the same bytes for the same entries."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stages.core.statistics import loss, loss_interval
from stages.reporting import drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Entry = Mapping[str, Any]
Entries = Mapping[str, Entry]

FARTHEST = 2.5  # limits: a loss beyond it is drawn at the edge, with an arrow


def labels(entries: Entries) -> dict[str, str]:
    """Shorten the name of each build: to the target alone where there is but one model."""
    models = {entry["model"] for entry in entries.values()}
    return {name: entry["target"] if len(models) == 1 else name for name, entry in entries.items()}


def accuracy_speed(model: str, entries: Entries) -> str:
    """Draw headline metric against speedup at one thread: for each build a labelled point with both intervals.

    Of the model's latency cases, from short to long, the middle one: long enough to be work, with many pairs.
    """
    cases = [case for case in next(iter(entries.values()))["latency"] if case.endswith("_1_thread")]
    case = cases[len(cases) // 2]
    with drawing.figure(f"accuracy and speedup of {model}", 7.4, 3.6) as (figure, out):
        axes = figure.subplots()
        points: list[tuple[float, float, str]] = []
        bars: list[drawing.Box] = []
        for entry in [e for e in entries.values() if e["accuracy"][e["headline"]]["value"] is not None]:
            accuracy, speed = entry["accuracy"][entry["headline"]], entry["latency"][case]
            x, y = speed["speedup"], accuracy["value"]
            across, up = speed["ci"], [end + y - accuracy["drift"] for end in accuracy["ci"] or [accuracy["drift"]] * 2]
            colour = drawing.COLOURS[entry["verdict"]]
            axes.plot(across, [y, y], "|-", [x, x], up, "_-", color=colour, lw=1, ms=6)
            axes.plot([x], [y], drawing.SHAPES[entry["verdict"]], color=colour, ms=7)
            points.append((x, y, f"{entry['target']} ({entry['verdict']})"))
            bars += [(across[0], y, across[1], y), (x, up[0], x, up[1])]
        axes.axvline(1, color=drawing.BASELINE, lw=1, ls="--")
        axes.set_xlabel(f"speedup over the plain fp32 export, {case} (further right is faster)")
        axes.set_ylabel(next(iter(entries.values()))["headline"])
        axes.margins(0.16, 0.18)
        axes.ticklabel_format(useOffset=False)
        drawing.style_axes(axes, "both")
        figure.draw_without_rendering()  # lays the axes out, and only then can a place be measured
        drawing.label_points(axes, points, [drawing.pixels(axes, bar) for bar in bars])
    return out[0]


def forest(entries: Entries) -> str:
    """Draw every gated accuracy metric's loss with its interval, as a share of its limit, so that all fit one axis."""
    short = labels(entries)
    rows = [
        (f"{short[name]}\n{metric}", measured)
        for name, entry in entries.items()
        for metric, measured in entry["accuracy"].items()
        if measured["verdict"] and measured["ci"]
    ]
    with drawing.figure("drift and limits", 7.4, 0.85 + 0.42 * len(rows)) as (figure, out):
        axes = figure.subplots()
        for row, (_, measured) in enumerate(rows):
            _forest_row(axes, row, measured)
        axes.axvspan(1, FARTHEST + 0.2, color=drawing.COLOURS["fail"], alpha=0.07, lw=0)
        axes.axvline(1, color=drawing.COLOURS["fail"], lw=1.4)
        axes.axvline(0, color=drawing.BASELINE, lw=1)
        axes.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=8)
        axes.set(xlim=(-0.55, FARTHEST + 0.2), ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlabel("loss as a share of its limit: 0 as the baseline, 1 (red) the limit")
        values = axes.secondary_yaxis("right")
        values.set_yticks(range(len(rows)), [_loss_text(m) for _, m in rows], fontsize=8)
        values.tick_params(length=0)
        values.spines["right"].set_visible(False)
        drawing.style_axes(axes, "x")
    return out[0]


def _forest_row(axes: Axes, row: int, measured: Mapping[str, Any]) -> None:
    middle, low, high = (_share(value, measured["limit"]) for value in (loss(measured), *loss_interval(measured)))
    colour, shape = drawing.COLOURS[measured["verdict"]], drawing.SHAPES[measured["verdict"]]
    axes.plot([low, min(high, FARTHEST)], [row, row], color=colour, lw=2)
    axes.plot([min(middle, FARTHEST)], [row], shape, color=colour, ms=6)
    if high > FARTHEST:
        axes.plot([FARTHEST + 0.1], [row], ">", color=colour, ms=6)


def _share(value: float, limit: float) -> float:
    """Return a loss as a share of its limit, not below -0.5; anything exceeds a limit of zero."""
    share = value / limit if limit else (FARTHEST + 1) * (value > 0)
    return max(-0.5, share)


def _loss_text(measured: Mapping[str, Any]) -> str:
    middle, (low, high) = loss(measured), loss_interval(measured)
    return f"{middle + 0:.4f} [{low + 0:.4f}, {high + 0:.4f}]\nlimit {measured['limit']:g}"


def latency_case(case: str, entries: Entries) -> str:
    """Draw the spread of one latency case: for each build the baseline's times above its own."""
    short = labels(entries)
    rows = [(short[name], e["latency"][case]) for name, e in entries.items() if case in e["latency"]]
    with drawing.figure(f"latency of {case}", 4.6, 0.75 + 0.42 * len(rows)) as (figure, out):
        axes = figure.subplots()
        for row, (_, measured) in enumerate(rows):
            _spread(axes, row - 0.15, measured["quantiles_ms"]["baseline"], drawing.BASELINE)
            _spread(axes, row + 0.15, measured["quantiles_ms"]["candidate"], drawing.CANDIDATE)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
        axes.set(title=case, ylim=(len(rows) - 0.4, -0.6), xlim=(0, None))
        axes.set_xlabel("ms")
        drawing.style_axes(axes, "x")
    return out[0]


def _spread(axes: Axes, row: float, quantiles: Sequence[float], colour: str) -> None:
    """Draw p2 to p98 as a thin line, p10 to p90 as a bar, the median as a dot and p90 as a tick."""
    percentile = _percentiles(quantiles)
    axes.plot([percentile(2), percentile(98)], [row, row], color=colour, lw=0.9)
    axes.plot([percentile(10), percentile(90)], [row, row], color=colour, lw=4.5, alpha=0.45, solid_capstyle="butt")
    axes.plot([percentile(50)], [row], "o", color=colour, ms=4.5)
    axes.plot([percentile(90)], [row], "|", color=colour, ms=8, mew=1.8)


def _percentiles(quantiles: Sequence[float]) -> Any:
    """Return the percentile function of an even grid of quantiles from 0 to 100."""
    step = 100 / (len(quantiles) - 1)
    return lambda q: quantiles[round(q / step)]


def distribution(case: str, measured: Mapping[str, Any]) -> str:
    """Draw how many of the runs took at most so long: baseline and build, with 50 % and 90 % marked."""
    margins = {"left": 0.12, "right": 0.98, "bottom": 0.2, "top": 0.89}
    with drawing.figure(f"distribution of {case}", 4.6, 2.5, margins) as (figure, out):
        axes = figure.subplots()
        for side, colour in (("baseline", drawing.BASELINE), ("candidate", drawing.CANDIDATE)):
            quantiles = measured["quantiles_ms"][side]
            share = [100 * i / (len(quantiles) - 1) for i in range(len(quantiles))]
            label = "plain fp32 export" if side == "baseline" else "this build"
            axes.plot(quantiles, share, color=colour, lw=1.6, label=label)
            axes.plot([_percentiles(quantiles)(q) for q in (50, 90)], [50, 90], "o", color=colour, ms=5)
        last = max(_percentiles(q)(98) for q in measured["quantiles_ms"].values())
        first = min(q[0] for q in measured["quantiles_ms"].values())
        axes.set(title=case, xlim=(first - 0.05 * (last - first), last + 0.05 * (last - first)))
        axes.set_yticks([0, 50, 90, 100], ["0", "50 %", "90 %", "100 %"])
        axes.set_xlabel("ms, up to the 98th percentile")
        axes.legend(loc="lower right", frameon=False, fontsize=8)
        drawing.style_axes(axes, "both")
    return out[0]


def sizes(entries: Entries) -> str:
    """Draw the bytes on disk of each build that was made, and of the plain fp32 export beside it."""
    short = labels(entries)
    rows = [(short[n], e["artifact"]["bytes"], e["verdict"]) for n, e in entries.items() if e["artifact"]["bytes"]]
    with drawing.figure("size on disk", 7.4, 0.75 + 0.3 * len(rows)) as (figure, out):
        axes = figure.subplots()
        for row, (_, size, judged) in enumerate(rows):
            axes.barh(
                row, size / 1e6, color=drawing.CANDIDATE if judged != "unavailable" else drawing.BASELINE, height=0.62
            )
            axes.annotate(
                f"{size / 1e6:.2f} MB", (size / 1e6, row), (4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=8)
        axes.set(ylim=(len(rows) - 0.4, -0.6))
        axes.margins(x=0.14)
        axes.set_xlabel("MB on disk")
        drawing.style_axes(axes, "x")
    return out[0]


def ranked(units: Entries) -> list[tuple[str, Entry]]:
    """Sort components and layers by what the task loses, the most first, then by the error of the outputs."""
    return sorted(units.items(), key=lambda item: (-item[1]["loss"], -item[1]["error"]))


def sensitivity(units: Entries) -> str:
    """Draw what the task loses with one component or layer at INT8, and beside it the error of the outputs."""
    rows = ranked(units)
    with drawing.figure("sensitivity", 7.4, 0.9 + 0.24 * len(rows)) as (figure, out):
        axes, errors = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        for row, (_, unit) in enumerate(rows):
            axes.plot(unit["ci"], [row, row], color=drawing.CANDIDATE, lw=2)
            axes.plot([unit["loss"]], [row], "o", color=drawing.CANDIDATE, ms=5)
            errors.barh(row, unit["error"], color=drawing.BASELINE, height=0.62)
        axes.axvline(0, color=drawing.BASELINE, lw=1)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
        axes.set(ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlabel("loss of the headline metric")
        errors.set_xlabel("error of the outputs, relative")
        for part in (axes, errors):
            drawing.style_axes(part, "x")
    return out[0]


def narrowing(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Draw what each width costs, narrowed alone, against the share of all parameters that this removes."""
    with drawing.figure("what each width costs", 7.4, 3.2) as (figure, out):
        axes = figure.subplots()
        for marker, (width, probes) in zip(itertools.cycle("osX^v"), curves.items()):  # as many as widths
            points = sorted((100 * probe["removed"], probe["tuning_loss"]) for probe in probes)
            axes.plot(*zip((0, 0), *points, strict=True), marker=marker, ms=5, lw=1.2, label=width)
        axes.set_xlabel("removed, % of all parameters")
        axes.set_ylabel("loss on the tuning split")
        axes.legend(frameon=False, fontsize=8)
        drawing.style_axes(axes, "both")
    return out[0]


def pareto(trials: Sequence[Mapping[str, Any]], front: Sequence[Mapping[str, Any]]) -> str:
    """Draw speed against loss of every recipe that passed, those that none beats in both joined by a line."""
    with drawing.figure("recipes tried", 7.4, 3.4) as (figure, out):
        axes = figure.subplots()
        axes.plot(
            [t["speedup"] for t in trials], [t["loss"] for t in trials], "o", color=drawing.BASELINE, ms=4, alpha=0.6
        )
        axes.plot(
            [t["speedup"] for t in front], [t["loss"] for t in front], "o-", color=drawing.CANDIDATE, ms=6, lw=1.4
        )
        for trial in front:
            axes.plot(trial["ci"], [trial["loss"]] * 2, "|-", color=drawing.CANDIDATE, lw=1, ms=6)
        axes.set_xlabel("speedup over the plain fp32 export, 1 thread, mean of the cases (further right is faster)")
        axes.set_ylabel("loss on the tuning split")
        axes.invert_yaxis()
        axes.ticklabel_format(useOffset=False)
        drawing.style_axes(axes, "both")
    return out[0]
