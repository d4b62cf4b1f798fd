"""Where everything lies. `dvc.yaml` says the same; a test holds the two together."""

from __future__ import annotations

from pathlib import Path

ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")
CACHE = Path(".cache")  # downloads: outside DVC's outs, which DVC deletes before a stage runs
SUMMARY = REPORTS / "summary.json"
GATE = REPORTS / "gate.json"
FINAL = REPORTS / "final.md"  # by a person's wish only: no stage writes or reads it
FAILURES = REPORTS / "failures"  # a file for each stage that failed in the last build
RELEASE = ARTIFACTS / "release"
ENVIRONMENT = ARTIFACTS / "environment"
GPU = Path("benchmarks/gpu")  # a JSON file of each device on which `make gpu` ran; in git
BUILDS = Path(".dvc/tmp/kiln")  # what `kiln repro` keeps of builds: logs, seconds


def corpus(dataset: str) -> Path:
    """Return the folder with the manifests and WAV files of a data set."""
    return ARTIFACTS / "corpus" / dataset


def data(dataset: str) -> Path:
    """Return the folder of a data set that the user imported: not in git, and no stage writes there."""
    return Path("data") / dataset


def pin(name: str) -> Path:
    """Return the lock file of a checkpoint, or of a data set of the hub; in git, written by `kiln pin`."""
    return Path("pins") / f"{name}.json"


def search(build: str) -> Path:
    """Return the file of what searches found of a build; in git, written by `kiln sensitivity` and `tune`."""
    return Path("searches") / f"{build}.json"


def checkpoint(model: str, variant: str = "dense") -> Path:
    """Return the folder of a FunASR checkpoint: as fetched (`dense`) or as pruned."""
    return ARTIFACTS / model / variant / "checkpoint"


def graphs(model: str, variant: str, name: str) -> Path:
    """Return a folder of ONNX graphs; name: `export`, `simplify`, `optimize`, `portable` or a recipe."""
    return ARTIFACTS / model / variant / name


def reference(model: str) -> Path:
    """Return the folder of what the fp32 torch model outputs on the evaluation data."""
    return ARTIFACTS / model / "dense" / "reference"


def quality(reference: Path) -> Path:
    """Return the file, beside those outputs, of each metric of them over all recordings, null where it has nothing."""
    return reference / "quality.json"


def measurements(target: str, model: str) -> Path:
    """Return the folder of one build's accuracy.json and latency.json."""
    return REPORTS / "measurements" / target / model


def report(target: str) -> Path:
    """Return the folder of one target's report."""
    return REPORTS / target
