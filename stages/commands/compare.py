"""Print what differs between two release folders, or between two reports of all builds, as Markdown.

Of releases that is accuracy, latency, size, recipe and provenance, each as its provenance.json has it; `kiln verify`
tells whether that is what was released. Of reports, folders with a summary.json, it is a row for each build.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.commands import compare_reports
from stages.core import layout
from stages.core.errors import UserError
from stages.core.files import read_json
from stages.release import statement
from stages.report import interval, md_code, number

EXAMPLE = "kiln compare old/fsmn_vad-cpu_int8 artifacts/release/fsmn_vad-cpu_int8"
ABSENT = "-"


def add_arguments(parser: ArgumentParser) -> None:
    """Take the two folders."""
    parser.add_argument("before", type=Path, help="a release folder, or the reports of a build")
    parser.add_argument("after", type=Path, help="the folder that would take its place")


def run(arguments: Namespace) -> None:
    """Print the differences.

    Raises:
        UserError: the folders are not two releases or two reports.
    """
    folders = (arguments.before, arguments.after)
    reports = [folder for folder in folders if compare_reports.is_report(folder)]
    if len(reports) == 1:
        [other] = [folder for folder in folders if folder not in reports]
        wanted = f"it has no {layout.SUMMARY.name}, which `kiln repro` writes last"
        raise UserError(f"{reports[0]} is the report of all builds and {other} is none: {wanted}")
    lines = compare_reports.compare if reports else compare
    print("\n".join(lines(*folders)))


def compare(before: Path, after: Path) -> Iterator[str]:
    """Yield a table in Markdown, with a line for each thing in which two releases differ.

    Raises:
        UserError: a folder has no statement of Kiln's.
    """
    old, new = facts(before), facts(after)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if not changed:
        yield f"{before} and {after} do not differ."
        return
    yield from (f"| | {md_code(before)} | {md_code(after)} |", "|---|---|---|")
    for key in changed:
        yield f"| {key} | {old.get(key, ABSENT)} | {new.get(key, ABSENT)} |"


def facts(folder: Path) -> dict[str, str]:
    """Return what a release says of itself, by name, each as it stands in a table.

    Raises:
        UserError: it has no statement of Kiln's.
    """
    place = folder / statement.FILE
    try:
        predicate = read_json(place)["predicate"]
        return dict(_facts(predicate))
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{place} is not a statement of Kiln's: {type(e).__name__}: {e}") from e


def _facts(predicate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    definition, measured = predicate["buildDefinition"], predicate[statement.MEASURED]
    yield "verdict", measured["verdict"]
    for name, m in measured["accuracy"].items():
        yield f"accuracy {md_code(name)}, drift", f"{number(m['value'])}, {interval(m['ci'])}"
    for name, m in measured["latency"].items():
        low, high = m["ci"]
        yield f"latency {md_code(name)}, speedup", f"{m['p50_ms']:.3f} ms, {m['speedup']:.2f}x [{low:.2f}, {high:.2f}]"
    yield "bytes", str(measured["artifact"]["bytes"])
    for name, digest in measured["artifact"]["files"].items():
        yield md_code(name), md_code(digest[:16])
    for name, value in sorted(definition["externalParameters"].items()):
        for key, each in sorted(value.items()) if isinstance(value, dict) else [("", value)]:
            yield f"{name} {key}".strip(), md_code(each)
    for each in definition["resolvedDependencies"]:
        digest = next(iter(each.get("digest", {}).values()), each.get("annotations", {}).get("describe", ABSENT))
        yield f"of {md_code(each['name'])}", md_code(digest[:16])
    for name, found in predicate["runDetails"]["builder"]["version"].items():
        yield f"with {md_code(name)}", md_code(found)
