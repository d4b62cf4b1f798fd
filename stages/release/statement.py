"""provenance.json: an in-toto statement about a release folder's files, with a SLSA provenance.

https://in-toto.io/Statement/v1 and https://slsa.dev/spec/v1.0/provenance. There are no times in it, so that the same
build has the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.core.params import Checkpoint
from stages.core.params.origins import ModelScopeSource
from stages.release.facts import Facts

FILE = "provenance.json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD_TYPE, BUILDER = "urn:kiln:build:v1", "urn:kiln:dvc-repro"
MEASURED = "kiln_measured"  # SLSA lets a vendor add fields with a prefix
JUDGED = ("verdict", "reason", "accuracy", "latency", "flags")
KEPT = ("artifact", "records", *JUDGED, "load_ms", "peak_memory_mib", "bytes", "runtimes")


def statement(facts: Facts, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement; files: SHA-256 of each file of the release by name."""
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(files.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "build": facts.build,
                    "model": facts.model.model_dump(mode="json", include=set(Checkpoint.model_fields)),
                    "license": {"id": facts.license, "origin": facts.license_origin},
                    "target": facts.target.model_dump(mode="json"),
                    "recipe": facts.recipe.model_dump(mode="json") if facts.recipe else None,
                },
                "internalParameters": {},
                "resolvedDependencies": materials(facts),
            },
            "runDetails": {"builder": {"id": BUILDER, "version": dict(facts.environment)}, "metadata": {}},
            MEASURED: {key: facts.entry[key] for key in KEPT if key in facts.entry},
        },
    }


def materials(facts: Facts) -> list[dict[str, Any]]:
    """Return what a build was made of: the commit of Kiln, and each file of the checkpoint with its digest."""
    origin = source(facts)
    kiln = {"name": "kiln", "annotations": {"describe": facts.commit}}
    if len(commit := facts.commit.removesuffix("-dirty")) == 40:
        kiln |= {"digest": {"gitCommit": commit}}
    files = facts.pin.files.items()
    return [kiln] + [
        {"name": name, "uri": f"{origin}#{name}", "digest": {"sha256": file.sha256}} for name, file in files
    ]


def source(facts: Facts) -> str:
    """Return the URI of a checkpoint: its id and revision on the hub, or else where it lies in the repository."""
    if facts.pin.hub_id:
        return f"{ModelScopeSource.__name__.removesuffix('Source').lower()}:{facts.pin.hub_id}@{facts.pin.revision}"
    first = facts.model.sources[0]
    return f"{first.kind}:{getattr(first, 'path', None) or getattr(first, 'folder', '')}"


def measured_files(found: Mapping[str, Any]) -> Mapping[str, str]:
    """Return SHA-256 of the files that were measured, by name, as a statement has them."""
    return dict(found["predicate"][MEASURED]["artifact"]["files"])


def commit(found: Mapping[str, Any]) -> str:
    """Return what git says of the commit of Kiln that made a release, as a statement has it."""
    kiln, *_ = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    return str(kiln["annotations"]["describe"])


def checkpoint_files(found: Mapping[str, Any]) -> dict[str, str]:
    """Return SHA-256 of the files of the checkpoint that a release was made of, by name."""
    _, *files = found["predicate"]["buildDefinition"]["resolvedDependencies"]
    return {str(file["name"]): str(file["digest"]["sha256"]) for file in files}


def subjects(found: Mapping[str, Any]) -> dict[str, str]:
    """Return SHA-256 of the files that a statement is about, by name."""
    return {str(subject["name"]): str(subject["digest"]["sha256"]) for subject in found["subject"]}
