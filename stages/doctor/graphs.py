"""Whether the graphs that are made, and those that were, are of versions that their runtime loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stages.core import graphs, layout
from stages.core.errors import UserError, from_library
from stages.doctor import matrix
from stages.doctor.finding import Finding, Level, level
from stages.doctor.matrix import Loads
from stages.doctor.subject import Subject
from stages.environment import library
from stages.runtimes import onnxruntime_cuda

FIX = "install a newer ONNX Runtime, or lower export.opset of params.yaml and build again"


def check(subject: Subject) -> Iterator[Finding]:
    """Yield what ONNX Runtime cannot load: of TensorRT-RTX, the parser refuses no version."""
    yield _asked(subject.p.export.opset, library("onnxruntime"))
    for runtime, version in (("onnxruntime", library("onnxruntime")), ("onnxruntime_cuda", onnxruntime_cuda.version())):
        if version and (loads := matrix.load().loads(version)):
            for place in _built(subject, runtime):
                yield from _check_graph(place, loads, version)


def _asked(opset: int, version: str) -> Finding:
    """Compare the opset that params.yaml asks for with what a version of ONNX Runtime loads."""
    loads = matrix.load().loads(version)
    if loads is None:
        wanted = f"{next(iter(matrix.load().onnxruntime))} or newer"
        consequence = "graphs may name an opset or IR version that it does not load"
        return Finding("opset", f"ONNX Runtime {version}", "warning", wanted, consequence, FIX)
    newest = f"{loads.opset}, the newest of ONNX Runtime {version}"
    if opset <= loads.opset:
        return Finding("opset", f"export.opset {opset}, of {newest}")
    consequence = "an exported graph cannot be compared with torch"
    return Finding("opset", f"export.opset {opset}", _level(version), f"at most {newest}", consequence, FIX)


def _level(version: str) -> Level:
    """Return how bad a newer opset is: of a version between two known ones, only what the older loads is known."""
    return level(blocks=version in matrix.load().onnxruntime)


def _built(subject: Subject, runtime: str) -> list[Path]:
    """List the graphs that were built for a runtime, each once: builds share them."""
    targets = subject.p.targets
    artifacts = [b.artifact for b in subject.builds.values() if targets[b.target].runtime == runtime]
    folders = [layout.ARTIFACTS / artifact for artifact in dict.fromkeys(artifacts)]
    return [place for folder in folders if folder.is_dir() for place in sorted(folder.glob("*.onnx"))]


def _check_graph(place: Path, loads: Loads, version: str) -> Iterator[Finding]:
    try:
        with from_library(f"{place} cannot be read"):
            found = _versions(place)
    except UserError as e:
        yield Finding("graph", str(e), "blocks", "an ONNX file", "its builds cannot be measured", "kiln repro")
        return
    if found.opset > loads.opset or found.ir > loads.ir:
        wanted = f"at most opset {loads.opset}, IR {loads.ir}: ONNX Runtime {version}"
        said = f"{place}: opset {found.opset}, IR {found.ir}"
        yield Finding("graph", said, _level(version), wanted, "its builds cannot be measured", FIX)


def _versions(place: Path) -> Loads:
    import onnx

    return Loads(opset=graphs.opset(place), ir=onnx.load(place, load_external_data=False).ir_version)
