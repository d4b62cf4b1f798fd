"""Stage `package`: the builds that passed, as folders that FunASR's own ONNX runtime loads.

`artifacts/release/<model>-<target>/` holds what consumers load (graphs or engines under FunASR's names, config, tokens,
CMVN), a model card, `provenance.json`, which says where each byte came from, a bill of materials, `SHA256SUMS`, and,
where KILN_SIGNING_KEY has a key, a signature over all of it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import layout, params, pins, plan, progress
from stages.core.errors import entrypoint, refuse_arguments
from stages.core.files import new_folder, read_json, sha256, write_json, write_text
from stages.core.params import UNQUANTIZED, Params
from stages.release import bom, card, contents, signature, statement, verification
from stages.release.facts import Facts


def package(artifact: Path, checkpoint: Path, facts: Facts, folder: Path) -> None:
    """Fill `folder` with one build: what consumers load, and the documents about it.

    Raises:
        UserError: an artifact's file is not the one that was measured, or the key is not one.
    """
    key = signature.environment_key()
    contents.fill(artifact, checkpoint, facts.entry["artifact"]["files"], folder, integer=facts.is_integer)
    write_text(folder / contents.README, card.render_card(facts, signed=key is not None))
    write_json(folder / bom.FILE, bom.bill(facts, _digests(folder)))
    write_json(folder / statement.FILE, statement.statement(facts, _digests(folder)))
    write_text(folder / verification.SUMS, verification.sums(folder))
    if key:
        signature.sign(folder, key)


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def gather(summary: Mapping[str, Any], name: str, p: Params, checkpoint: Path) -> Facts:
    """Gather what is known of a build, of which `summary` has what was measured."""
    entry = summary["builds"][name]
    model, target = p.models[entry["model"]], p.targets[entry["target"]]
    licensed, origin = card.read_license(checkpoint, model)
    plain = target.graph in UNQUANTIZED
    return Facts(
        build=name,
        commit=_commit(),
        model=model,
        pin=pins.demand(entry["model"], model),
        license=licensed,
        license_origin=origin,
        target=target,
        recipe=None if plain else p.recipe(entry["model"], target.variant, target.graph),
        environment=summary["environment"],
        entry=entry,
    )


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
    refuse_arguments(argv, "package")
    p, summary = params.load(), read_json(layout.SUMMARY)
    builds = plan.derive(p).builds
    passed = [name for name, build in summary["builds"].items() if build["verdict"] == "pass"]
    with new_folder(layout.RELEASE) as folder:
        for name in progress.each(passed, "builds"):
            build = builds[name]
            (folder / name).mkdir()
            checkpoint = layout.checkpoint(build.model, p.targets[build.target].variant)
            facts = gather(summary, name, p, checkpoint)
            package(layout.ARTIFACTS / build.artifact, checkpoint, facts, folder / name)
    signed = "signed" if signature.environment_key() else f"unsigned: {signature.VARIABLE} has no key"
    print(f"{layout.RELEASE}: {len(passed)} of {len(builds)} builds, {signed}")


if __name__ == "__main__":
    entrypoint(main)
