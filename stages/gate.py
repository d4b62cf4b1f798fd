"""Stage `gate`: exit 0 only if every required build passed, else 1 with one line for each metric that did not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stages.core import layout
from stages.core.errors import UserError, entrypoint
from stages.core.files import read_json
from stages.core.results import describe
from stages.summary import show


def failures(summary: dict[str, Any]) -> Iterator[str]:
    """One line for each thing that keeps a required build from passing."""
    for name, build in summary["builds"].items():
        if not build["required"] or build["verdict"] == "pass":
            continue
        judged = {**build["accuracy"], **build["latency"]}
        bad = [
            f"{name}: {v['verdict']}: {describe(m, v)}"
            for m, v in judged.items()
            if v["verdict"] in {"fail", "inconclusive"}
        ]
        yield from bad or [f"{name}: {build['verdict']}: {build['reason']}"]


def main(argv: Sequence[str]) -> None:
    """`python -m stages.gate`."""
    if argv:
        raise SystemExit("usage: python -m stages.gate")
    summary = read_json(layout.SUMMARY)
    lines = list(failures(summary))
    if lines:
        show()
        raise UserError("\n  ".join(["the gate is closed:", *lines]))
    required = [name for name, build in summary["builds"].items() if build["required"]]
    if not required:
        raise UserError(f"{layout.SUMMARY} has no required build: nothing was proved")
    print(f"gate: all {len(required)} required builds passed")
    others = {name: build for name, build in summary["builds"].items() if not build["required"]}
    for name, build in others.items():
        print(f"gate: {name}: {build['verdict']}, not required: {build['reason']}")


if __name__ == "__main__":
    entrypoint(main)
