"""bom.cdx.json: a CycloneDX bill of materials of a release, with a model card that machines read.

The library has no model cards yet, so that part is added to what it writes; and its time is taken out, so that the
same build has the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from stages.release import statement
from stages.release.facts import Facts

if TYPE_CHECKING:
    from cyclonedx.model.component import Component, ComponentType

FILE = "bom.cdx.json"
MACHINE = ("cpu", "gpu", "older-onnxruntime", "python", "signing-key")  # of `environment`: no library
ABSENT = "not installed"


def bill(facts: Facts, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the bill of materials; files: SHA-256 of each file of the release by name."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output.json import JsonV1Dot6

    model = _model(facts)
    parts = [*_files(files), *_checkpoint(facts), *_libraries(facts.environment)]
    serial = uuid5(NAMESPACE_URL, json.dumps([facts.build, facts.commit, *sorted(files.items())]))
    bom = Bom(serial_number=serial, metadata=BomMetaData(component=model), components=parts)
    bom.register_dependency(model, parts)
    written: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    del written["metadata"]["timestamp"]
    written["metadata"]["component"]["modelCard"] = _card(facts)
    return written


def _model(facts: Facts) -> Component:
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=facts.build,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"build:{facts.build}",
        version=facts.commit,
        licenses=[LicenseFactory().make_from_string(facts.license)],
        description=f"{facts.model.family}, {facts.target.variant}, {facts.precision}, for {facts.target.runtime}",
    )


def _files(files: Mapping[str, str]) -> Iterable[Component]:
    from cyclonedx.model.component import ComponentType

    return [_part(ComponentType.FILE, "file", name, digest) for name, digest in files.items()]


def _checkpoint(facts: Facts) -> Iterable[Component]:
    from cyclonedx.model.component import ComponentType

    origin, files = statement.source(facts), facts.pin.files.items()
    return [_part(ComponentType.DATA, origin, name, file.sha256) for name, file in files]


def _part(kind: ComponentType, origin: str, name: str, digest: str) -> Component:
    """Return a file, named by where it is from."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component

    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)]
    return Component(name=name, type=kind, bom_ref=f"{origin}#{name}", hashes=hashes, group=origin)


def _libraries(environment: Mapping[str, str]) -> Iterable[Component]:
    """Return the libraries that built and measured it."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return [
        Component(
            name=name, version=version, type=ComponentType.LIBRARY, bom_ref=f"pypi:{name}",
            purl=PackageURL("pypi", name=name, version=version),
        )
        for name, version in environment.items()
        if name not in MACHINE and version != ABSENT
    ]  # fmt: skip


def _card(facts: Facts) -> dict[str, Any]:
    """Return the model card: what was measured, with intervals, and what it is not known to be good for."""
    metrics = [_metric(name, m) for name, m in facts.entry["accuracy"].items() if m["value"] is not None]
    return {
        "modelParameters": {
            "architectureFamily": facts.model.family,
            "modelArchitecture": f"{facts.target.variant} {facts.precision}",
            "datasets": [{"type": "dataset", "name": facts.model.dataset}],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"technicalLimitations": [f"Measured on the data set {facts.model.dataset} alone."]},
    }


def _metric(name: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return a metric; the interval is that of its drift from the fp32 model, moved to the value."""
    found: dict[str, Any] = {"type": name, "value": f"{measured['value']:.6g}"}
    if measured["ci"] and measured["baseline"] is not None:
        low, high = (measured["baseline"] + end for end in measured["ci"])
        found["confidenceInterval"] = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
    return found
