"""Stage `engine`: TensorRT engines with a sidecar that says what each one is and needs.

TensorRT-RTX builds ahead of time, without a GPU, for the compute capabilities in params. TensorRT
builds on the GPU it will run on. What this machine cannot build is recorded with the reason and
reported as unavailable; it is no error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stages.core import graphs, layout, params, plan, progress
from stages.core.errors import entrypoint, key_from
from stages.core.files import new_folder, sha256, write_json
from stages.core.graphs import Graph
from stages.core.params import EngineParams
from stages.runtimes import tensorrt


def build(graph: Graph, onnx: Path, place: Path, runtime: str, settings: EngineParams) -> dict[str, object]:
    """Build one graph's engine and return its sidecar: versions, profile, capabilities, layers, digests."""
    sidecar = tensorrt.build(onnx, graph, place, runtime, settings)
    return {
        **sidecar,
        "profile": {name: axis.model_dump() for name, axis in graph.axes.items()},
        "onnx_sha256": sha256(onnx),
        "engine_sha256": sha256(place),
        "engine_bytes": place.stat().st_size,
    }


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.engine MODEL-TARGET`."""
    p = params.load()
    lines = plan.derive(p).engine
    name = key_from(argv, "engine", lines)
    line = lines[name]
    runtime = p.targets[line.target].runtime
    origin = layout.graphs(line.model, line.variant, line.graph)
    graph_set = graphs.read(origin)
    why = tensorrt.why_not_built(runtime)
    engines = {}
    with new_folder(layout.graphs(line.model, line.variant, line.target)) as folder:
        for graph_name, graph in graph_set.graphs.items() if why is None else ():
            place = folder / f"{Path(graph.file).stem}.engine"
            with graphs.whole(origin / graph.file, folder) as onnx, progress.phase(f"build {place.name}"):
                engines[graph_name] = build(graph, onnx, place, runtime, p.engine)
        graphs.write(folder, graph_set)
        write_json(folder / "engine.json", {"runtime": runtime, "unavailable": why, "engines": engines})
    print(f"{name}: {why or f'{len(engines)} engine(s) built'}")


if __name__ == "__main__":
    entrypoint(main)
