"""Stage `summary`: all builds as one page, as JSON for the gate and other programs, and as tables for `dvc plots`.

With `--show` it prints the last summary as a table instead.
"""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stages.core import layout, params, plan, progress
from stages.core.errors import entrypoint
from stages.core.files import read_json, write_json, write_text
from stages.core.speedups import describe_speedup
from stages.report import gated, interval, number, render, signed, size
from stages.reporting import devices, figures, results
from stages.reporting.drawing import COLOURS
from stages.reporting.figures import Entries, Entry

PAGE = layout.REPORTS / "index.html"
PIPELINES = layout.REPORTS / "pipeline" / "index.html"
PLOTS = layout.REPORTS / "plots"
WIDTH = 128
STYLES = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "baseline": "bold magenta"}
STYLES |= {"failed": "bold red", "unavailable": "dim"}


def summary(entries: Entries, pipelines: Entries, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what reports/summary.json holds: the entries without what only the pages need."""
    tables = {"builds": entries, "pipelines": pipelines}
    compact = {table: {name: _compact(entry) for name, entry in own.items()} for table, own in tables.items()}
    return {"environment": dict(environment), **compact}


def _compact(entry: Entry) -> dict[str, Any]:
    latency = {
        case: {key: value for key, value in measured.items() if key != "quantiles_ms"}
        for case, measured in entry["latency"].items()
    }
    return {key: value for key, value in entry.items() if key not in {"by_recording", "texts"}} | {"latency": latency}


def page(entries: Entries, pipelines: Entries, environment: Mapping[str, str], confidence: str) -> str:
    """Render the page over all targets."""
    measured = {name: entry for name, entry in entries.items() if entry["accuracy"]}
    by_model: dict[str, dict[str, Entry]] = {}
    for name, entry in measured.items():
        by_model.setdefault(entry["model"], {})[name] = entry
    counted = Counter(entry["verdict"] for entry in entries.values())
    cases = dict.fromkeys(case for entry in measured.values() for case in entry["latency"])
    return render(
        "index.html",
        builds=entries,
        pipelines=pipelines,
        environment=environment,
        confidence=confidence,
        measured=measured,
        elsewhere=devices.collect_elsewhere(entries),
        counts=[(verdict, counted[verdict]) for verdict in COLOURS if counted[verdict]],
        accuracy_speed=[(model, figures.accuracy_speed(model, own)) for model, own in by_model.items()],
        forest=figures.forest(measured) if any(gated(entry) for entry in measured.values()) else None,
        latency=[figures.latency_case(case, measured) for case in cases],
        sizes=figures.sizes(entries) if any(entry["artifact"]["bytes"] for entry in entries.values()) else None,
    )


def pipeline_page(pipelines: Entries, environment: Mapping[str, str], confidence: str) -> str:
    """Render the page of the pipelines."""
    measured = {name: entry for name, entry in pipelines.items() if entry["accuracy"]}
    return render(
        "pipeline.html",
        pipelines=pipelines,
        measured=measured,
        environment=environment,
        confidence=confidence,
        forest=figures.forest(measured) if any(gated(entry) for entry in measured.values()) else None,
    )


def accuracy_latency_csv(entries: Entries) -> str:
    """Write a CSV line for each build and one-thread latency case: the headline metric beside the speedup."""
    rows = [
        (
            name,
            entry["headline"],
            entry["accuracy"][entry["headline"]]["value"],
            case,
            m["speedup"],
            *m["ci"],
            m["p50_ms"],
        )
        for name, entry in entries.items()
        for case, m in results.one_thread(entry).items()
    ]
    return _csv(("build", "metric", "value", "case", "speedup", "speedup_low", "speedup_high", "p50_ms"), rows)


def latency_csv(entries: Entries) -> str:
    """Write a CSV line for each build and latency case: milliseconds of build and baseline at two percentiles."""
    keys = ("p50_ms", "p90_ms", "baseline_p50_ms", "baseline_p90_ms", "speedup")
    rows = [
        (f"{name} {case}", *(measured[key] for key in keys), *measured["ci"])
        for name, entry in entries.items()
        for case, measured in entry["latency"].items()
    ]
    return _csv(("build_and_case", *keys, "speedup_low", "speedup_high"), rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()


def table(builds: Entries) -> Table:
    """Build the table that `make repro` ends with; it fits 128 columns."""
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    shown.add_column("build", overflow="fold")
    shown.add_column("verdict", no_wrap=True)
    for heading in ("truth", "drift", "speedup", "size"):
        shown.add_column(heading, justify="right", no_wrap=heading in {"truth", "size"})
    shown.add_column("required")
    for name, entry in builds.items():
        style = STYLES[entry["verdict"]]
        required = "yes" if entry["required"] else "no"
        known = (_truth(entry), _drift(entry), _speedups(entry), _size(entry))
        shown.add_row(name, f"[{style}]{entry['verdict']}[/]", *known, required)
    return shown


def _truth(entry: Entry) -> str:
    """Format how right the fp32 model is and how right the build, by what the data set knows."""
    if not entry["accuracy"]:
        return "-"
    measured = entry["accuracy"][entry["truth"]]
    return f"{number(measured['baseline'])} {number(measured['value'])}"


def _drift(entry: Entry) -> str:
    """Format the headline metric's drift with its interval."""
    if not entry["accuracy"]:
        return "-"
    measured = entry["accuracy"][entry["headline"]]
    return f"{signed(measured['drift'])}\n{escape(interval(measured['ci']))}"


def _speedups(entry: Entry) -> str:
    """Format the speedups of the shortest and the longest case at one thread, a line for each."""
    cases = list(results.one_thread(entry).values())
    return escape("\n".join(map(describe_speedup, cases[:: max(1, len(cases) - 1)]))) or "-"


def _size(entry: Entry) -> str:
    return size(entry["artifact"]["bytes"]) if entry["artifact"]["bytes"] else "-"


def legend(builds: Entries, pipelines: Entries) -> list[str]:
    """Explain the columns, for each set of latency cases that the builds have, then list reasons and flags."""
    measured = [entry for entry in builds.values() if entry["accuracy"]]
    held = dict.fromkeys((e["truth"], e["headline"], tuple(results.one_thread(e))) for e in measured)
    lines = [
        f"truth: {truth} of the fp32 torch model and of the build; drift: {metric} against that model; speedup: "
        f"{' and '.join(cases[:: max(1, len(cases) - 1)])} against the plain fp32 export, 1 thread"
        for truth, metric, cases in held
    ]
    if pipelines:
        named = ", ".join(dict.fromkeys(entry["model"] for entry in pipelines.values()))
        lines.append(
            f"{named}: final_cer and speedup of the whole pipeline against that of plain fp32 exports, 1 thread"
        )
    for name, entry in {**builds, **pipelines}.items():
        if entry["verdict"] != "pass":
            lines.append(f"{name}: {entry['verdict']}: {entry['reason']}")
        lines += [f"{name}: {flag}" for flag in entry["flags"]]
    return lines


def show() -> None:
    """Print the last summary; without colours, and 128 columns wide, where the output is no terminal."""
    last = read_json(layout.SUMMARY)
    builds, pipelines = last["builds"], last["pipelines"]
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(table({**builds, **pipelines}))
    console.print()
    for line in legend(builds, pipelines):
        console.print(line, markup=False)
    console.print(f"\nreport: {PAGE}", markup=False)


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.summary [--show]`."""
    if argv == ["--show"]:
        return show()
    if argv:
        print("usage: python -m stages.summary [--show]", file=sys.stderr)
        raise SystemExit(2)
    p = params.load()
    tables = plan.derive(p)
    entries = {name: results.build_entry(p, name) for name in progress.each(list(tables.builds), "builds")}
    pipelines = {name: results.pipeline_entry(p, name) for name in tables.pipelines}
    environment, confidence = results.environment(), f"{p.evaluate.confidence:.0%}"
    write_text(PLOTS / "accuracy_latency.csv", accuracy_latency_csv(entries))
    write_text(PLOTS / "latency.csv", latency_csv(entries))
    with progress.phase("pages"):
        write_text(PAGE, page(entries, pipelines, environment, confidence))
        write_text(PIPELINES, pipeline_page(pipelines, environment, confidence))
    write_json(layout.SUMMARY, summary(entries, pipelines, environment))
    print(", ".join(f"{name}: {entry['verdict']}" for name, entry in {**entries, **pipelines}.items()))
    return None


if __name__ == "__main__":
    entrypoint(main)
