"""Stage `engine`: what a runtime makes of a graph to load it, with a sidecar that says what each file is and needs.

TensorRT-RTX builds ahead of time, without a GPU, for the compute capabilities in params. TensorRT builds on the GPU it
will run on. ONNX Runtime, OpenVINO and LiteRT's converter write a graph in formats of their own, in a process with a
time limit. What this machine cannot build, and what those three refuse, is recorded with the reason and reported as
unavailable; it is no error.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.core import children, graphs, layout, params, plan, progress
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import new_folder, read_json, sha256, write_json
from stages.core.graphs import Graph, GraphSet
from stages.core.params import EngineParams
from stages.core.params.section import TENSORRT
from stages.runtimes import litert, openvino, openvino_bf16, ort_format, tensorrt

CHILD, RECORD = "--in-child", "record.json"
CONVERTERS = {"ort_format": ort_format, "openvino": openvino, "openvino_bf16": openvino_bf16, "litert": litert}


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


def convert(origin: Path, folder: Path, runtime: str, seconds: float) -> dict[str, Any]:
    """Build in a process of its own, which may take so long: on a graph that it does not know a converter may hang.

    Returns:
        engines: the sidecars of what lies in `folder` then. unavailable: why there are none, or None.

    Raises:
        UserError: it was not the graph that it failed at.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "stages.engine", CHILD, runtime, str(origin), scratch]
        try:
            done = children.run(command, seconds)
        except UserError as e:
            return _refused(f"{origin}: the converter {e} (engine.seconds of params.yaml)")
        if done.returncode < 0:
            return _refused(f"{origin}: the converter {children.why_failed(done)}")
        if why := children.why_failed(done):
            print(done.stderr, file=sys.stderr, end="")
            raise UserError(f"{origin}: the conversion for {runtime} failed: {why.removeprefix('error: ')}")
        record = dict(read_json(Path(scratch) / RECORD))
        (Path(scratch) / RECORD).unlink()
        for path in Path(scratch).iterdir() if record["engines"] else ():
            path.replace(folder / path.name)
        return record


def _refused(why: str) -> dict[str, Any]:
    return {"unavailable": why, "engines": {}}


def _convert_here(runtime: str, origin: Path, folder: Path, settings: EngineParams) -> None:
    """Build into `folder`, in a process for it, run it once, and write what `convert` returns there."""
    try:
        record = {"unavailable": None, "engines": build_all(origin, folder, runtime, settings)}
        _run(folder, graphs.read(origin), runtime)
    except UserError as e:
        record = _refused(str(e).replace(str(folder), str(origin)))
    write_json(folder / RECORD, record)


def _run(folder: Path, graph_set: GraphSet, runtime: str) -> None:
    """Run what was converted on inputs of usual sizes.

    Raises:
        UserError: the runtime does not load or run it.
    """
    for name, network in CONVERTERS[runtime].load(folder, graph_set).items():
        graph = graph_set.graphs[name]
        network(graphs.example_feeds(graph, graph.usual_sizes, seed=0))


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.engine MODEL-TARGET`."""
    p = params.load()
    if argv[:1] == [CHILD]:
        return _convert_here(argv[1], Path(argv[2]), Path(argv[3]), p.engine)
    lines = plan.derive(p).engine
    name = key_from(argv, "engine", lines)
    line = lines[name]
    runtime = p.targets[line.target].runtime
    origin = layout.graphs(line.model, line.variant, line.graph)
    with new_folder(layout.graphs(line.model, line.variant, line.target)) as folder:
        if why := why_not_built(runtime):
            record = _refused(why)
        elif runtime in TENSORRT:
            record = {"unavailable": None, "engines": build_all(origin, folder, runtime, p.engine)}
        else:
            record = convert(origin, folder, runtime, p.engine.seconds)
        graphs.write(folder, graphs.read(origin))
        write_json(folder / "engine.json", {"runtime": runtime, **record})
    built = f"{len(record['engines'])} engine(s) built"
    print(f"{name}: {record['unavailable'] or built}")
    return None


if __name__ == "__main__":
    entrypoint(main)
