"""Measure a release on recordings that users collected: the gate's metrics and intervals, against the fp32 model.

DIR is a data set with `evaluation.jsonl`, whose truth is known, or a folder of WAV files, 16 kHz with one channel. Of
those nobody knows the truth, so the release is held to what the fp32 model makes of them, by the metrics that compare
the two. A metric with a limit has to keep it; every other one has drifted if it surely loses more here than where the
release was judged.
"""

from __future__ import annotations

import os
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from stages import models, runtimes
from stages.core import layout, params, plan
from stages.core.errors import UserError, did_you_mean
from stages.core.files import read_json, sha256
from stages.core.params import Params
from stages.core.plan import Build
from stages.core.statistics import describe_drift, loss_interval
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluate import count_processes, evaluate, load_artifact
from stages.models.accuracy import AGAINST_FP32
from stages.models.protocols import Family, HasSegments, HasText
from stages.reference import write_reference
from stages.release import statement, verification
from stages.reporting.results import judge_metric

EXAMPLE = "kiln drift artifacts/release/fsmn_vad-cpu_int8 --audio collected"
HEAD = "| metric | where it was judged | here | loss at most | verdict |\n|---|---|---|---|---|"
BAD = ("fail", "drifted")
OTHER_AUDIO = {".aac", ".amr", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".webm", ".wma"}
MOST = 20  # problems that are listed
CONVERT = "ffmpeg -i IN -ar 16000 -ac 1 OUT.wav"


@runtime_checkable
class Labels(Protocol):
    """A family whose outcomes are scores of labels."""

    def labels(self, folder: Path) -> Sequence[str]:
        """Return the label of each score; folder: the checkpoint."""


def add_arguments(parser: ArgumentParser) -> None:
    """Take the release and the recordings."""
    parser.add_argument("folder", type=Path, help="a folder of artifacts/release")
    parser.add_argument("--audio", type=Path, required=True, metavar="DIR", help="WAV files, or a data set")


def run(arguments: Namespace) -> None:
    """Print a table in Markdown, and fail if a metric drifted.

    Raises:
        UserError: one did, or the release, its model here or the recordings are not what is needed.
    """
    verification.check(arguments.folder)
    p, found = params.load(), read_json(arguments.folder / statement.FILE)
    build = _build(p, found["predicate"]["buildDefinition"]["externalParameters"]["build"])
    again = ["drift", str(arguments.folder), "--audio", str(arguments.audio)]
    runtimes.enter(p.targets[build.target].runtime, "__main__", again)
    _check_same_model(arguments.folder, layout.checkpoint(build.model), statement.checkpoint_files(found))
    recordings, truth = collected(arguments.audio)
    print(f"{arguments.folder} on {len(recordings)} recordings of {arguments.audio}\n\n{HEAD}")
    released = found["predicate"][statement.MEASURED]["accuracy"]
    metrics = measure(p, build, arguments.folder, recordings, truth=truth)
    judged = dict(judge(p, build, metrics, released, truth=truth))
    if not judged:
        raise UserError(f"{arguments.audio} has nothing to measure: the fp32 model finds nothing in its recordings")
    for metric, value in judged.items():
        print(_row(metric, released.get(metric), value))
    if bad := [metric for metric, value in judged.items() if value["verdict"] in BAD]:
        raise UserError(f"{arguments.folder} loses more on {arguments.audio} than it may: {', '.join(bad)}")


def collected(folder: Path) -> tuple[list[Recording], bool]:
    """Read recordings, and whether their truth is known; name files of other formats, which are left out.

    Raises:
        UserError: there are none, or some are not audio that the models take, or the same; has a line for each.
    """
    if (folder / "evaluation.jsonl").is_file():
        return manifest.check_split(folder, "evaluation", {}), True
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in files if path.suffix.lower() == ".wav"]
    others = [path for path in files if path.suffix.lower() in OTHER_AUDIO]
    found = f"{len(others)} files of other formats, such as {others[0]} (`{CONVERT}`)" if others else ""
    if not paths:
        but = f", but {found}" if found else ""
        raise UserError(f"{folder}: found no WAV file and no evaluation.jsonl{but}")
    recordings, problems = _read_all(folder, paths)
    if problems:
        head = (
            f"{folder}: {len(problems)} of {len(paths)} WAV files cannot be used; convert (`{CONVERT}`) or move them:"
        )
        more = [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
        raise UserError("\n  ".join([head, *problems[:MOST], *more]))
    if found:
        print(f"left out: {found}")
    return recordings, False


def _read_all(folder: Path, paths: Sequence[Path]) -> tuple[list[Recording], list[str]]:
    """Read what can be used of WAV files; return also why each other one cannot, a line for each."""
    recordings: list[Recording] = []
    problems: list[str] = []
    seen: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            name.encode()
            samples = manifest.read_wav(path)
        except UnicodeEncodeError:
            problems.append(f"{os.fsencode(path)!r}: its name is not UTF-8")
            continue
        except UserError as e:
            problems.append(str(e))
            continue
        if (same := seen.setdefault(manifest.content(samples), path)) is not path:
            problems.append(f"{path}: the same sound as {same}: it would count twice")
        seconds = len(samples) / manifest.SAMPLE_RATE
        recordings.append(Recording(folder=folder, id=name, wav=name, seconds=seconds, sha256=sha256(path)))
    return recordings, problems


def measure(
    p: Params, build: Build, folder: Path, recordings: Sequence[Recording], *, truth: bool
) -> Mapping[str, Mapping[str, Any]]:
    """Return every metric of a release on the recordings; truth: whether theirs is known.

    Raises:
        UserError: this machine has no such runtime.
    """
    target, checkpoint = p.targets[build.target], layout.checkpoint(build.model)
    if (why := runtimes.why_unavailable(target.runtime)) is not None:
        raise UserError(f"{folder} cannot be run here: {why}")
    family, artifact = models.load(p.models[build.model].family), load_artifact(folder, target)
    with tempfile.TemporaryDirectory() as place:
        write_reference(family, checkpoint, recordings, Path(place))
        if not truth:
            outcomes = family.read_outcomes(Path(place), family.MODES[0])
            recordings = [_replace_truth(family, checkpoint, *each) for each in zip(recordings, outcomes, strict=True)]
        processes = count_processes(target)
        found = evaluate(family, checkpoint, recordings, artifact, Path(place), p.evaluate, processes=processes)
    if found["not_finite"]:
        raise UserError(f"{folder}: NaN or infinite numbers in {found['not_finite']} of {len(recordings)} recordings")
    metrics: dict[str, dict[str, Any]] = found["metrics"]
    return metrics


def _check_same_model(folder: Path, checkpoint: Path, wanted: Mapping[str, str]) -> None:
    """Refuse where the fp32 model here is not the one that the release was made of; wanted: SHA-256 by name."""
    for name, digest in wanted.items():
        place = checkpoint / name
        if not place.is_file():
            raise UserError(f"{place} is not there, with which {folder} is compared: `kiln repro` fetches it")
        if sha256(place) != digest:
            raise UserError(f"{place} is not the file that {folder} was made of: wanted sha256 {digest}")


def _replace_truth(family: Family[Any], checkpoint: Path, recording: Recording, outcome: object) -> Recording:
    """Return a recording with what the fp32 model makes of it in the place of the truth."""
    known: dict[str, Any] = {}
    if isinstance(outcome, HasSegments):
        known["segments"] = [(start / 1000, end / 1000) for start, end in outcome.segments]
    if isinstance(outcome, HasText):
        known["text"] = outcome.text
    if isinstance(family, Labels):
        known["label"] = family.labels(checkpoint)[int(outcome.scores.argmax())]  # type: ignore[attr-defined]
    return recording.model_copy(update=known)


def judge(
    p: Params, build: Build, metrics: Mapping[str, Mapping[str, Any]], released: Mapping[str, Any], *, truth: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each metric that says something of these recordings, judged."""
    gate, family = p.gates[p.targets[build.target].gate], p.models[build.model].family
    for metric, found in metrics.items():
        if found["baseline"] is None or not (truth or metric.partition("_")[2] in AGAINST_FP32):
            continue
        judged = judge_metric(dict(found), gate.accuracy[family].get(metric), None)
        before = released.get(metric)
        if judged["verdict"] is None and before and before["baseline"] is not None:
            drifted = loss_interval(judged)[0] > loss_interval(before)[1]
            judged["verdict"] = "drifted" if drifted else "as released"
        yield metric, judged


def _row(metric: str, before: Mapping[str, Any] | None, found: Mapping[str, Any]) -> str:
    was = describe_drift(before) if before and before["baseline"] is not None else "-"
    limit = "-" if found["limit"] is None else f"{found['limit']:.4g}"
    return f"| {metric} | {was} | {describe_drift(found)} | {limit} | {found['verdict'] or '-'} |"


def _build(p: Params, name: str) -> Build:
    """Return the build of a release, of which this repository has the model, the target and their limits."""
    builds = plan.derive(p).builds
    if name not in builds:
        raise UserError(f"params.yaml has no build {name!r}, of which the release is; {did_you_mean(name, builds)}")
    return builds[name]
