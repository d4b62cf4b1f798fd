"""Whether a release folder is what it was when it was made: every file, and the graphs that were measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stages.core.errors import UserError
from stages.core.files import read_json, read_lines, sha256
from stages.release import contents, signature, statement

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\0]+)")


def sums(folder: Path) -> str:
    """Return what `SHA256SUMS` of a folder has to be, as `sha256sum -c` reads it."""
    return "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir()) if path.name != SUMS)


def problems(folder: Path, key: Path | None = None) -> Iterator[str]:
    """Yield each way in which a folder is not the release that it was made as, naming the file.

    key: a public one, with which it has to be signed.

    Raises:
        UserError: it is no folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; wanted one of artifacts/release")
    try:
        listed = dict(_listed(folder / SUMS))
        found = read_json(folder / statement.FILE)
        subjects, measured = statement.subjects(found), statement.measured_files(found)
    except UserError as e:
        yield str(e)
        return
    except (KeyError, TypeError, AttributeError) as e:
        yield f"{folder / statement.FILE} is not a statement of Kiln's: {type(e).__name__}: {e}"
        return
    yield from _differences(folder, listed)
    for name, digest in subjects.items():
        if listed.get(name) != digest:
            yield f"{folder / name}: {SUMS} has {listed.get(name)}, {statement.FILE} has {digest}"
    yield from _unmeasured(folder, listed, subjects, measured)
    if key and (why := signature.why_not_verified(folder, key)):
        yield f"{folder} {why}"


def _listed(place: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and digest of each line of a list of digests."""
    for number, line in enumerate(read_lines(place), start=1):
        if not (match := LINE.fullmatch(line)):
            raise UserError(
                f"{place} line {number}: found {line[:80]!r}, wanted a SHA-256, two spaces and a file's name"
            )
        yield match[2], match[1]


def _differences(folder: Path, listed: Mapping[str, str]) -> Iterator[str]:
    """Yield each file that is changed, missing or extra."""
    there = {path.name: path for path in folder.iterdir()}
    for name, digest in listed.items():
        path = there.get(name)
        if path is None:
            yield f"{folder / name}: missing"
        elif path.is_symlink() or not path.is_file():
            yield f"{path}: found a link or a folder, wanted a file"
        elif (now := sha256(path)) != digest:
            yield f"{path}: changed: found sha256 {now}, {SUMS} has {digest}"
    for name in sorted(there.keys() - listed.keys() - {SUMS, signature.FILE}):
        yield f"{there[name]}: extra: {SUMS} does not have it"


def _unmeasured(
    folder: Path, listed: Mapping[str, str], subjects: Mapping[str, str], measured: Mapping[str, str]
) -> Iterator[str]:
    """Yield each graph or engine that is not the one of the measurements, and each of those that is not there."""
    names = dict(measured)
    names |= {contents.quantized_name(name): digest for name, digest in measured.items() if name.endswith(".onnx")}
    for name in measured.keys() - listed.keys():
        yield f"{folder / name}: missing: it was measured"
    for name, digest in listed.items():
        if name.endswith(contents.MEASURED) and (names.get(name) != digest or name not in subjects):
            yield f"{folder / name} is not the graph that was measured: sha256 {digest}, wanted {names.get(name)}"


def check(folder: Path, key: Path | None = None) -> str:
    """Check a release folder, and its signature where a public key is given.

    Returns:
        What is known of the signature.

    Raises:
        UserError: it is not the release that it was made as; has a line for each problem.
    """
    found = list(problems(folder, key))
    if found:
        raise UserError("\n  ".join([f"{folder} is not as it was released:", *found]))
    if key:
        return f"signed with {key}"
    signed = (folder / signature.FILE).is_file()
    return "signed; --key would check by whom" if signed else "unsigned: whoever can write there can change it"


def contradictions(folder: Path, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what a release's measured files are not those of its entry in reports/summary.json."""
    released, summarized = statement.measured_files(read_json(folder / statement.FILE)), entry["artifact"]["files"]
    for name in sorted(released.keys() | summarized.keys()):
        if released.get(name) != summarized.get(name):
            yield f"{folder / name} is not the graph of the last report: {released.get(name)}, {summarized.get(name)}"
