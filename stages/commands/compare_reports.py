"""What differs between two reports of all builds, such as the main branch's and a pull request's, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json
from stages.core.speedups import describe_speedup
from stages.report import gated, interval, md_code, milliseconds, number, size
from stages.reporting.results import one_thread

Facts = dict[str, dict[str, str]]
"""What is known of one build: by column and name, each as it stands in a table."""
COLUMNS = ("verdict", "accuracy, drift", "latency, speedup", "size")
ABSENT = "-"


def is_report(folder: Path) -> bool:
    """Tell whether a folder has the report of all builds."""
    return (folder / layout.SUMMARY.name).is_file()


def compare(before: Path, after: Path) -> Iterator[str]:
    """Yield a table with a row for each build or pipeline in which two reports differ, and where each was measured.

    Raises:
        UserError: a folder's summary is not Kiln's, or not that of this version.
    """
    (old, old_cpu), (new, new_cpu) = map(_read, (before, after))
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if changed:
        yield from (f"| build | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|")
        yield from (_row(name, old.get(name, {}), new.get(name, {})) for name in changed)
        yield ""
    yield f"{len(old.keys() | new.keys()) - len(changed)} builds do not differ."
    yield f"Measured on {md_code(new_cpu)}" + (f", before on {md_code(old_cpu)}." if old_cpu != new_cpu else ".")


def _read(folder: Path) -> tuple[dict[str, Facts], str]:
    """Read what is known of each build by name, and the processor that it was measured on."""
    place = folder / layout.SUMMARY.name
    summary = read_json(place)
    try:
        facts = {name: _facts(entry) for name, entry in _entries(summary)}
        return facts, summary["environment"].get("cpu", ABSENT)
    except (KeyError, TypeError, AttributeError, ValueError) as e:
        raise UserError(f"{place} is not a summary of this version of Kiln: {type(e).__name__}: {e}") from e


def _entries(summary: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [*summary["builds"].items(), *summary["pipelines"].items()]


def _facts(entry: Mapping[str, Any]) -> Facts:
    """Return the verdict, the metrics with a limit, the cases on one thread and the size of a build."""
    accuracy = {name: f"{number(m['value'])}, {interval(m['ci'])}" for name, m in gated(dict(entry))}
    latency = {case: f"{_describe_time(m)}, {describe_speedup(m)}" for case, m in one_thread(entry).items()}
    values = ({"": entry["verdict"]}, accuracy, latency, {"": size(entry["artifact"]["bytes"])})
    return dict(zip(COLUMNS, values, strict=True))


def _describe_time(measured: Mapping[str, Any]) -> str:
    """Return how long a case takes; of a pipeline that is its real-time factor."""
    return f"rtf {measured['rtf']:.4f}" if "rtf" in measured else f"{milliseconds(measured['p50_ms'])} ms"


def _row(name: str, old: Facts, new: Facts) -> str:
    cells = (_cell(old.get(column, {}), new.get(column, {})) for column in COLUMNS)
    return f"| {md_code(name)} | {' | '.join(cells)} |"


def _cell(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Return one line for each name, with both values where they differ."""
    lines = []
    for name in {**old, **new}:
        was, now = old.get(name, ABSENT), new.get(name, ABSENT)
        value = now if was == now else f"{was} → **{now}**"
        lines.append(f"{md_code(name)} {value}" if name else value)
    return "<br>".join(lines) or ABSENT
