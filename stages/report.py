"""Stage `report`: one target's builds as a web page, as Markdown for a pull request and as metrics for DVC.

The page needs nothing beside it: style and figures are inline, there is no script, and it opens from disk.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from stages.core import layout, params, plan, progress
from stages.core.errors import entrypoint, key_from
from stages.core.files import read_json, write_json, write_text
from stages.core.speedups import describe_speedup, mean_speedup
from stages.reporting import devices, figures, results
from stages.reporting.figures import Entries, Entry

WORST = 10
NOTHING = "-"


def number(value: float | None) -> str:
    """Format a number to four decimals, to two significant digits if they would hide it, or as a dash if None."""
    if value is None:
        return NOTHING
    return f"{value:.2g}" if 0 < abs(value) < 0.0005 else f"{value + 0:.4f}"


def signed(value: float | None) -> str:
    """Format a drift as `number` does, with its sign."""
    return number(value) if value is None or value <= 0 else f"+{number(value)}"


def interval(ci: Sequence[float] | None) -> str:
    """Format the two ends of a drift's interval."""
    return f"[{signed(ci[0])}, {signed(ci[1])}]" if ci else NOTHING


def milliseconds(value: float | None) -> str:
    """Format milliseconds to about three significant digits; a dash where nothing was measured."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def size(value: int) -> str:
    """Format bytes in B, kB or MB, of a thousand each."""
    if value < 1e3:
        return f"{value} B"
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value / 1e3:.0f} kB"


def md_code(value: object) -> str:
    """Format a name as a Markdown code span that cannot leave it or its table cell."""
    return "`" + " ".join(str(value).split()).replace("`", "'").replace("|", "\\|") + "`"


def md_text(value: object) -> str:
    """Escape text so that Markdown shows it as it is: no tags, links, emphasis or cells of its own."""
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join("\\" + letter if letter in "\\`*|[]" else letter for letter in text)


def grouped(nodes: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Group names by the value that they share, in order of appearance."""
    groups: dict[str, list[str]] = {}
    for name, value in nodes.items():
        groups.setdefault(value, []).append(name)
    return list(groups.items())


def modes(entry: Entry) -> list[tuple[str, dict[str, Any]]]:
    """Group accuracy metrics by the mode that their names begin with."""
    found: dict[str, dict[str, Any]] = {}
    for name, measured in entry["accuracy"].items():
        mode, _, metric = name.partition("_")
        found.setdefault(mode, {})[metric] = measured
    return list(found.items())


def gated(entry: Entry) -> list[tuple[str, Any]]:
    """List the accuracy metrics that have a limit."""
    return [(name, measured) for name, measured in entry["accuracy"].items() if measured["verdict"]]


def recording_metrics(entry: Entry) -> list[str]:
    """List the metrics that are known of single recordings."""
    return list(dict.fromkeys(metric for values in entry["by_recording"].values() for metric in values))


def worst(entry: Entry) -> list[tuple[str, dict[str, float]]]:
    """Find the recordings with the worst headline metric, the worst first."""
    headline = entry["headline"]
    sign = 1 if entry["accuracy"][headline]["higher_is_better"] else -1
    known = [(name, values) for name, values in entry["by_recording"].items() if headline in values]
    return sorted(known, key=lambda item: sign * item[1][headline])[:WORST]


def stage_records(entry: Entry) -> list[tuple[str, Any]]:
    """List what the stages recorded, without what the page shows in its own way."""
    return [
        (stage, value) for stage, value in entry["records"].items() if stage not in {"checkpoint", "quantize", "prune"}
    ]


def pruned(entries: Entries) -> dict[str, Any]:
    """Collect what `prune` recorded, once for each model: its builds share the checkpoint."""
    return {e["model"]: e["records"]["prune"] for e in entries.values() if "prune" in e["records"]}


def narrowing(record: Mapping[str, Any]) -> str | None:
    """Draw the figure of what each width costs, where that was measured."""
    return figures.narrowing(record["sensitivity"]) if record["sensitivity"] else None


def checkpoints(entries: Entries) -> dict[str, dict[str, str]]:
    """Collect the digests of every checkpoint's files, once for each model and variant."""
    known = [entry for entry in entries.values() if entry["records"]]
    return {f"{e['model']} {e['variant']}": e["records"]["checkpoint"] for e in known}


FILTERS = {
    "bytes": size,
    "checkpoints": lambda entries: checkpoints(entries).items(),
    "code": md_code,
    "gated": gated,
    "grouped": grouped,
    "interval": interval,
    "md": md_text,
    "modes": modes,
    "ms": milliseconds,
    "narrowing": narrowing,
    "number": number,
    "one_thread": lambda entry: results.one_thread(entry).items(),
    "pruned": lambda entries: pruned(entries).items(),
    "recording_metrics": recording_metrics,
    "signed": signed,
    "speedup": describe_speedup,
    "stage_records": stage_records,
    "worst": worst,
}


@functools.cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "reporting" / "templates"),
        autoescape=select_autoescape(["html"]),  # Markdown has escapes of its own: md_code, md_text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= FILTERS
    return environment


def render(template: str, **values: Any) -> str:
    """Render a file of stages/reporting/templates with the values."""
    return _templates().get_template(template).render(**values)


def metrics(entries: Entries) -> dict[str, Any]:
    """Collect the numbers that `dvc metrics diff` compares: each model's metrics, speedups and bytes."""
    return {
        entry["model"]: {
            **{name: m["value"] for name, m in entry["accuracy"].items() if m["value"] is not None},
            **_baseline(entry),
            **{
                f"speedup_{case}{end}": number
                for case, m in entry["latency"].items()
                for end, number in zip(("", "_low", "_high"), (m["speedup"], *m["ci"]), strict=True)
            },
            **({"bytes": entry["artifact"]["bytes"]} if entry["artifact"]["bytes"] else {}),
        }
        for entry in entries.values()
    }


def _baseline(entry: Entry) -> dict[str, float]:
    """Return how right the fp32 model is; metrics.json has it beside the build's own value of that metric."""
    value = entry["accuracy"][entry["truth"]]["baseline"] if entry["accuracy"] else None
    return {} if value is None else {f"baseline_{entry['truth']}": value}


def searches(entries: Entries) -> dict[str, dict[str, Any]]:
    """Collect what searches/ has of each build, as the page shows it: figures, and the recipes that none beats."""
    found = {name: read_json(layout.search(name)) for name in entries if layout.search(name).is_file()}
    return {name: _figures_of_search(known) for name, known in found.items()}


def _figures_of_search(known: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if "sensitivity" in known:
        shown["sensitivity"] = {
            "metric": known["sensitivity"]["about"]["metric"],
            "figure": figures.sensitivity(known["sensitivity"]["units"]),
        }
    if "tune" in known:
        tried = known["tune"]["trials"]
        passed = [t | mean_speedup(t["speedups"].values()) for t in tried if t["passed"]]
        front = pareto_front(passed)
        shown["tune"] = {
            "cpu": known["tune"]["cpu"],
            "metric": known["tune"]["about"]["metric"],
            "tried": len(tried),
            "passed": len(passed),
            "front": front,
            "figure": figures.pareto(passed, front),
        }
    return shown


def pareto_front(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Find the trials that no other beats in both speedup and loss, the fastest first."""
    front: list[Mapping[str, Any]] = []
    for trial in sorted(trials, key=lambda t: (-t["speedup"], t["loss"])):
        if not front or trial["loss"] < front[-1]["loss"]:
            front.append(trial)
    return front


def page(
    target: str, entries: Entries, environment: Mapping[str, str], confidence: str, elsewhere: devices.ByBuild
) -> str:
    """Render the target's page."""
    return render(
        "target.html",
        target=target,
        builds=entries,
        environment=environment,
        confidence=confidence,
        searches=searches(entries),
        elsewhere=elsewhere,
        forests={name: figures.forest({name: e}) if gated(e) else None for name, e in entries.items()},
        distributions={
            name: [figures.distribution(case, measured) for case, measured in e["latency"].items()]
            for name, e in entries.items()
        },
    )


def markdown(
    target: str, entries: Entries, environment: Mapping[str, str], confidence: str, elsewhere: devices.ByBuild
) -> str:
    """Render the target's report as Markdown for a pull request's comment."""
    values = {"builds": entries, "environment": environment, "confidence": confidence, "elsewhere": elsewhere}
    return render("report.md", target=target, **values)


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.report TARGET`."""
    p = params.load()
    target = key_from(argv, "report", p.targets)
    names = plan.derive(p).reports[target].builds
    entries = {name: results.build_entry(p, name) for name in progress.each(names, "builds")}
    folder = layout.report(target)
    facts = results.environment(), f"{p.evaluate.confidence:.0%}", devices.collect_elsewhere(entries)
    with progress.phase("page"):
        write_text(folder / "index.html", page(target, entries, *facts))
    write_text(folder / "report.md", markdown(target, entries, *facts))
    write_json(folder / "metrics.json", metrics(entries))
    for name, entry in entries.items():
        print(f"{name}: {entry['verdict']}: {entry['reason']}")


if __name__ == "__main__":
    entrypoint(main)
