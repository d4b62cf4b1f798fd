"""Stage `engine`: what a runtime makes of a graph to load it, with a sidecar that says what each file is and needs.

TensorRT-RTX builds ahead of time, without a GPU, for the compute capabilities in params. TensorRT
builds on the GPU it will run on. ONNX Runtime, OpenVINO and LiteRT's converter write a graph in formats of their own.
What this machine cannot build, and what those three refuse, is recorded with the reason and reported as unavailable; it
is no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.core import graphs, layout, params, plan, progress
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import new_folder, sha256, write_json
from stages.core.graphs import Graph
from stages.core.params import EngineParams
from stages.core.params.section import TENSORRT
from stages.runtimes import litert, openvino, ort_format, tensorrt

CONVERTERS = {"ort_format": ort_format, "openvino": openvino, "litert": litert}


def build(graph: Graph, onnx: Path, place: Path, runtime: str, settings: EngineParams) -> dict[str, object]:
    """Build one graph's engine and return its sidecar: versions, profile, capabilities, layers, digests."""
    if runtime in TENSORRT:
        sidecar = tensorrt.build(onnx, graph, place, runtime, settings)
    else:
        sidecar = CONVERTERS[runtime].build(onnx, place)
    return {
        **sidecar,
        "profile": {name: axis.model_dump() for name, axis in graph.axes.items()},
        "onnx_sha256": sha256(onnx),
        "engine_sha256": sha256(place),
        "engine_bytes": place.stat().st_size,
    }


def why_not_built(runtime: str) -> str | None:
    """Explain why this machine cannot build for a runtime, or return None."""
    return tensorrt.why_not_built(runtime) if runtime in TENSORRT else CONVERTERS[runtime].why_unavailable()


def build_all(origin: Path, folder: Path, runtime: str, settings: EngineParams) -> dict[str, dict[str, object]]:
    """Build an engine of each graph in `origin` into `folder`, and return the sidecars.

    Raises:
        UserError: a graph is refused.
    """
    suffix = tensorrt.SUFFIX if runtime in TENSORRT else CONVERTERS[runtime].SUFFIX
    engines = {}
    for name, graph in graphs.read(origin).graphs.items():
        place = folder / Path(graph.file).with_suffix(suffix)
        with graphs.whole(origin / graph.file, folder) as onnx, progress.phase(f"build {place.name}"):
            engines[name] = build(graph, onnx, place, runtime, settings)
    return engines


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.engine MODEL-TARGET`."""
    p = params.load()
    lines = plan.derive(p).engine
    name = key_from(argv, "engine", lines)
    line = lines[name]
    runtime = p.targets[line.target].runtime
    origin = layout.graphs(line.model, line.variant, line.graph)
    why, engines = why_not_built(runtime), {}
    with new_folder(layout.graphs(line.model, line.variant, line.target)) as folder:
        try:
            engines = {} if why else build_all(origin, folder, runtime, p.engine)
        except UserError as e:
            if runtime in TENSORRT:
                raise
            why = str(e)
        graphs.write(folder, graphs.read(origin))
        write_json(folder / "engine.json", {"runtime": runtime, "unavailable": why, "engines": engines})
    print(f"{name}: {why or f'{len(engines)} engine(s) built'}")


if __name__ == "__main__":
    entrypoint(main)
