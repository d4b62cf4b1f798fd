"""Stage `simplify`: onnxsim in a child process, kept only where it is right and pays.

onnxsim is native code that can crash or run away on a graph it does not know, so it gets a process
with a time and a memory limit; whatever happens there, this stage ends with a good graph.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stages import runtimes
from stages.core import graphs, layout, params
from stages.core.errors import entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.graphs import Graph
from stages.core.packages import import_bare
from stages.core.parallel import cores
from stages.core.params import SimplifyParams
from stages.core.parity import largest_differences
from stages.runtimes import onnxruntime

if TYPE_CHECKING:
    import onnx

T = TypeVar("T")
CHILD = "--in-child"
LOADS, LOAD_SECONDS = 15, 2.0  # of both, or what fits into the seconds, once at least
SLOWER = 1.25  # loads differ by a tenth from run to run here; a graph that really loads slower is past this


def simplify(source: Path, graph: Graph, place: Path, settings: SimplifyParams) -> str | None:
    """Write the simplified graph to `place`, or a copy of `source` and return why it was kept."""
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        simplified = Path(scratch) / source.name
        why = run_child(source, simplified, settings) or _why_not(source, simplified, graph, settings)
        graph_file, *weights = _files(source if why else simplified)
        put = shutil.copyfile if why else shutil.move
        put(graph_file, place)
        for path in weights:  # under the name that the graph has for it
            put(path, place.parent / path.name)
    return why


def _files(graph: Path) -> list[Path]:
    """A graph's file, and that of its weights where they are apart."""
    return [path for path in (graph, graph.with_name(f"{graph.name}.data")) if path.is_file()]


def _bytes(graph: Path) -> int:
    return sum(path.stat().st_size for path in _files(graph))


def run_child(source: Path, place: Path, settings: SimplifyParams) -> str | None:
    """Run onnxsim under its limits; why there is no result, or None."""

    def limit() -> None:
        size = int(settings.memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    command = [sys.executable, "-m", "stages.simplify", CHILD, str(source), str(place)]
    # Weights in the heap that malloc keeps: page faults of blocks that come and go are a third of the time at 220 M.
    kept = {"MALLOC_MMAP_THRESHOLD_": str(2**27), "MALLOC_TRIM_THRESHOLD_": str(2**27)}
    try:
        done = subprocess.run(
            command,
            preexec_fn=limit,
            env=os.environ | kept,
            capture_output=True,
            text=True,
            timeout=settings.seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"onnxsim ran for over {settings.seconds:g} s and was stopped"
    if done.returncode < 0:
        return f"onnxsim died of signal {-done.returncode}"
    if done.returncode > 0 or not place.is_file():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"onnxsim failed with status {done.returncode}: {last}"
    return None


def _why_not(source: Path, simplified: Path, graph: Graph, settings: SimplifyParams) -> str | None:
    """Why the simplified graph is not to be used, or None."""
    runtimes.warm("onnxruntime")
    live = {path: _timed(partial(onnxruntime.network, path, graph, cores())) for path in (source, simplified)}
    differences = largest_differences(graph, live[source][1], live[simplified][1])
    loads = {path: [seconds] for path, (seconds, _) in live.items()}
    live.clear()  # and their memory
    worst = max(differences, key=lambda name: differences[name])
    if not differences[worst] <= settings.tolerance:
        return f"differs by {differences[worst]:.3g} on {worst}, at most {settings.tolerance:g} is allowed"
    before, after = _bytes(source), _bytes(simplified)
    if after > before:
        return f"larger: {after} bytes against {before}"
    while len(loads[source]) < LOADS and sum(map(sum, loads.values())) < LOAD_SECONDS:
        for path, seconds in loads.items():
            seconds.append(_timed(partial(onnxruntime.session, path))[0])
    ratios = [b / a for a, b in zip(loads[source], loads[simplified], strict=True)]
    return "slower to load" if statistics.median(ratios) > SLOWER else None


def _timed(load: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    loaded = load()
    return time.perf_counter() - start, loaded


def _in_child(source: Path, place: Path) -> None:
    """What runs under the limits: onnxsim itself, without the quantizers that its `__init__` imports."""
    import_bare("onnxsim")
    from onnxsim.onnx_simplifier import simplify as onnxsim_simplify

    # From file to file, in half the memory of passing models; what comes back has no weights where they are in a file.
    model, equal = onnxsim_simplify(str(source), output_path=str(place), external_data_threshold="1GB")
    if not equal:
        sys.exit("onnxsim's own check found a difference")
    name_weights(model, place)


def name_weights(model: onnx.ModelProto, place: Path) -> None:
    """Give the file of weights beside a graph, for which onnxsim draws a name past two gigabytes, that of the graph.

    model: the graph of `place`, without what is in that file.
    """
    import onnx

    where = [entry for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"]
    if not (drawn := {entry.value for entry in where}):
        return
    if len(drawn) > 1:
        sys.exit(f"onnxsim wrote weights to {len(drawn)} files, wanted one")
    (place.parent / drawn.pop()).replace(place.parent / f"{place.name}.data")
    for entry in where:
        entry.value = f"{place.name}.data"
    onnx.save(model, place)


def main(argv: Sequence[str]) -> None:
    """`python -m stages.simplify MODEL-VARIANT`."""
    if argv[:1] == [CHILD]:
        return _in_child(Path(argv[1]), Path(argv[2]))
    p = params.load()
    line = p.variants[key_from(argv, "simplify", p.variants)]
    origin = layout.graphs(line.model, line.variant, "export")
    graph_set = graphs.read(origin)
    record = {}
    with new_folder(layout.graphs(line.model, line.variant, "simplify")) as folder:
        for name, graph in graph_set.graphs.items():
            why = simplify(origin / graph.file, graph, folder / graph.file, p.simplify)
            record[name] = {"simplified": why is None, "kept_because": why, **_sizes(origin, folder, graph)}
            print(f"{line.model} {line.variant} {name}: {why or 'simplified'} {record[name]}")
        graphs.write(folder, graph_set)
        write_json(folder / "simplify.json", record)
    return None


def _sizes(origin: Path, folder: Path, graph: Graph) -> dict[str, int]:
    import onnx

    sizes = {}
    for when, where in (("before", origin), ("after", folder)):
        sizes[f"nodes_{when}"] = len(onnx.load(where / graph.file, load_external_data=False).graph.node)
        sizes[f"bytes_{when}"] = _bytes(where / graph.file)
    return sizes


if __name__ == "__main__":
    entrypoint(main)
