"""Stage `gate`: exit 0 only if required builds and pipelines passed, else 1 and a line for each metric that did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stages.core import layout
from stages.core.errors import UserError, entrypoint, refuse_arguments
from stages.core.files import read_json, write_json
from stages.release import signature, verification
from stages.reporting.results import describe

CLOSING = ("fail", "inconclusive")


def failures(summary: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each thing that keeps a required build or pipeline from passing; what was not made first."""
    entries = gated(summary)
    for name, build in sorted(entries.items(), key=lambda item: item[1]["verdict"] != "failed"):
        if not build["required"] or build["verdict"] == "pass":
            continue
        bad = [(verdict, line) for verdict, line in explain_metrics(build).values() if verdict in CLOSING]
        yield from (f"{name}: {verdict}: {why}" for verdict, why in bad or [(build["verdict"], build["reason"])])


def explain_metrics(entry: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the verdict and a line for each metric with a limit; none where something else decided, such as NaN."""
    judged = {**entry["accuracy"], **entry["latency"]}
    found = {name: (value["verdict"], describe(name, value)) for name, value in judged.items() if value["verdict"]}
    is_by_metric = entry["verdict"] == "pass" or any(line in entry["reason"] for _, line in found.values())
    return found if is_by_metric else {}


def _format_excuse(build: dict[str, Any]) -> str:
    return f" ({build['excuse']})" if build["excuse"] else ""


def touched(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what the release folders are not those that were made of what the summary has; all may be absent.

    Where the environment has a key to sign with, each has to be signed with it.
    """
    passed = {name: build for name, build in summary["builds"].items() if build["verdict"] == "pass"}
    folders = {path.name: path for path in sorted(layout.RELEASE.iterdir())} if layout.RELEASE.is_dir() else {}
    with signature.public_key() as key:
        for name, folder in folders.items():
            if name not in passed:
                yield f"{folder}: extra: no build of that name passed"
            else:
                found = list(verification.problems(folder, key))
                yield from found or verification.contradictions(folder, passed[name])
    yield from (f"{layout.RELEASE / name}: missing: it passed" for name in passed if folders and name not in folders)


def problems(summary: dict[str, Any]) -> Iterator[str]:
    """Yield what closes the gate beside the verdicts: a touched release folder, or that nothing is required."""
    entries = gated(summary)
    yield from touched(summary)
    if not any(entry["required"] for entry in entries.values()):
        yield f"{layout.SUMMARY} has no required build: nothing was proved"


def gated(summary: dict[str, Any]) -> dict[str, Any]:
    """Return builds and pipelines by name: the gate judges both alike.

    Raises:
        UserError: it is the summary of a Kiln that wrote other things.
    """
    try:
        return {**summary["builds"], **summary["pipelines"]}
    except (KeyError, TypeError) as e:
        raise UserError(f"{layout.SUMMARY} is not what this Kiln writes: {type(e).__name__}: {e}; `kiln repro`") from e


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.gate`."""
    refuse_arguments(argv, "gate")
    summary = read_json(layout.SUMMARY)
    lines = [*failures(summary), *problems(summary)]
    if lines:
        raise UserError("\n  ".join(["the gate is closed:", *lines]))
    required = [name for name, build in gated(summary).items() if build["required"]]
    write_json(layout.GATE, {"required": required})
    print(f"gate: all {len(required)} required builds passed")
    if not layout.RELEASE.is_dir():
        print(f"gate: {layout.RELEASE} is not here: no release was checked")
    others = {name: build for name, build in gated(summary).items() if not build["required"]}
    for name, build in others.items():
        print(f"gate: {name}: {build['verdict']}, not required{_format_excuse(build)}: {build['reason']}")


if __name__ == "__main__":
    entrypoint(main)
