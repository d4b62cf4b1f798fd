"""Stage `package`: the builds that passed, as folders that FunASR's own ONNX runtime loads.

`artifacts/release/<model>-<target>/` holds what the runtime reads (graphs or engines under FunASR's names, config,
tokens, CMVN), `provenance.json`, which says where each byte came from, and `SHA256SUMS`.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import graphs, layout, params, pins, plan, progress
from stages.core.errors import UserError, entrypoint, no_arguments
from stages.core.files import new_folder, read_json, sha256, write_json, write_text
from stages.models.shared.checkpoint import WEIGHTS

SUMS = "SHA256SUMS"
PROVENANCE = "provenance.json"


def package(artifact: Path, checkpoint: Path, provenance: Mapping[str, Any], folder: Path) -> None:
    """Fill `folder` with one build: the artifact's files, and the checkpoint's without its weights.

    Raises:
        UserError: an artifact's file is not the one that was measured.
    """
    for path in sorted(checkpoint.iterdir()):
        if path.is_file() and path.name not in {WEIGHTS, "prune.json"}:
            shutil.copyfile(path, folder / path.name)
    files = graphs.files(artifact)
    for name, digest in provenance["artifact"]["files"].items():
        shutil.copyfile(files[name], folder / name)
        if sha256(folder / name) != digest:
            raise UserError(f"{files[name]} is not the file that was measured; run `dvc repro` again")
    graphs.write(folder, graphs.read(artifact))  # its weights are here, wherever the artifact has them
    write_json(folder / PROVENANCE, provenance)
    names = sorted(path.name for path in folder.iterdir())
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def provenance(summary: Mapping[str, Any], name: str, model: params.Model) -> dict[str, Any]:
    """Describe where the bytes of a build came from and what was measured of them."""
    entry = summary["builds"][name]
    pin = pins.demand(entry["model"], model).model_dump(exclude_none=True)
    return {
        "build": name,
        "kiln": _commit(),
        "model": {**model.model_dump(mode="json", include=set(params.Checkpoint.model_fields)), "pin": pin},
        "environment": summary["environment"],
        **{key: entry[key] for key in ("artifact", "records", "verdict", "reason", "accuracy", "latency", "flags")},
    }


def _commit() -> str:
    """Return the commit of this repository, marked where files differ from it, or what git says instead."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as e:
        return f"unknown: git: {e.strerror}"
    return done.stdout.strip() or f"unknown: {done.stderr.strip().partition(chr(10))[0]}"


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.package`."""
    no_arguments(argv, "package")
    p, summary = params.load(), read_json(layout.SUMMARY)
    builds = plan.derive(p).builds
    passed = [name for name, build in summary["builds"].items() if build["verdict"] == "pass"]
    with new_folder(layout.RELEASE) as folder:
        for name in progress.each(passed, "builds"):
            build = builds[name]
            (folder / name).mkdir()
            checkpoint = layout.checkpoint(build.model, p.targets[build.target].variant)
            record = provenance(summary, name, p.models[build.model])
            package(layout.ARTIFACTS / build.artifact, checkpoint, record, folder / name)
    print(f"{layout.RELEASE}: {len(passed)} of {len(builds)} builds")


if __name__ == "__main__":
    entrypoint(main)
