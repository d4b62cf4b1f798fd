"""Stage `simplify`: onnxsim in a child process, kept only where it is right and not larger.

onnxsim is native code that can crash or run away on a graph it does not know, so it gets a process
with a time and a memory limit; whatever happens there, this stage ends with a good graph.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages import runtimes
from stages.core import children, graphs, layout, lifetime, params, parity, plan, progress
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import new_folder, write_json
from stages.core.graphs import Graph
from stages.core.packages import import_bare
from stages.core.parallel import cores
from stages.core.params import SimplifyParams
from stages.core.parity import Network
from stages.runtimes import onnxruntime

if TYPE_CHECKING:
    import onnx

CHILD = "--in-child"
# A linear layer of three axes as one of two: two Reshapes, a Gemm and the arithmetic of their shapes in the place of a
# MatMul and an Add. A tenth slower in ONNX Runtime at 220 M parameters; neither a rewrite nor SmoothQuant looks for it.
SKIPPED = ["fuse_matmul_add_bias_into_gemm_batched"]


def simplify(source: Path, graph: Graph, place: Path, settings: SimplifyParams, tolerance: float) -> str | None:
    """Write the simplified graph to `place`, or a copy of `source` and return why it was kept.

    Large weights that lie beside `source` stay there, and the new graph refers to them. tolerance: of `parity.excess`.

    Raises:
        UserError: `source` does not load or run, so that it is not onnxsim that fails.
    """
    runtimes.warm("onnxruntime")
    reference = parity.remember(onnxruntime.network(source, graph, cores(), prepacked=False))
    parity.largest_differences(graph, reference(), reference())
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        simplified = Path(scratch) / source.name
        with progress.phase(f"simplify {source.name}"):
            why = run_child(source, simplified, settings)
        with progress.phase(f"compare {source.name} with the export"):
            why = why or _reason_to_keep(source, simplified, graph, reference(), tolerance)
        if why:
            shutil.copyfile(source, place)
        else:
            for path in Path(scratch).iterdir():  # the graph and, if most of them changed, its weights
                path.replace(place.parent / (place.name if path == simplified else path.name))
    return why


def _total_bytes(graph: Path, source: Path) -> int:
    """Sum up the bytes of a graph's files; it may refer to the weights of `source`."""
    return sum(path.stat().st_size for path in graphs.parts(graph, source.parent))


def run_child(source: Path, place: Path, settings: SimplifyParams) -> str | None:
    """Run onnxsim under its limits and return why there is no result, or None."""
    command = [sys.executable, "-m", "stages.simplify", CHILD, str(os.getpid()), str(source), str(place)]
    try:
        done = children.run(command, settings.seconds, memory_gib=settings.memory_gib)
    except UserError as e:
        return f"onnxsim {e}"
    if why := children.why_failed(done):
        return f"onnxsim failed: {why}"
    return None if place.is_file() else "onnxsim wrote no graph"


def _reason_to_keep(source: Path, simplified: Path, graph: Graph, reference: Network, tolerance: float) -> str | None:
    """Return why the simplified graph is not to be used, or None. reference: the network of `source`."""
    if _nodes(source) == _nodes(simplified):
        return "nothing to simplify"
    weights = graphs.weights_folder(simplified, source.parent)
    try:
        candidate = onnxruntime.network(simplified, graph, cores(), prepacked=False, weights=weights)
    except UserError as e:
        return f"does not load: {e}"
    if why := parity.excess(parity.largest_differences(graph, reference, candidate), tolerance):
        return why
    before, after = (_total_bytes(path, source) for path in (source, simplified))
    # Not by how long they take to load: what a clock says differs from build to build, and so would the bytes.
    return f"larger: {after} bytes against {before}" if after > before else None


def _nodes(graph: Path) -> list[onnx.NodeProto]:
    return list(graphs.load_proto(graph).graph.node)


def _run_onnxsim(source: Path, place: Path) -> None:
    """Run onnxsim itself, under the limits, without the quantizers that its `__init__` imports.

    Weights in a file of their own stay there: onnxsim is given inputs in their place, and copies none of them.
    """
    import onnx_ir as ir

    import_bare("onnxsim")
    from onnxsim.onnx_simplifier import simplify as onnxsim_simplify

    model = graphs.load(source)
    apart = graphs.set_apart(model)
    found, equal = onnxsim_simplify(ir.to_proto(model), skipped_optimizers=SKIPPED)
    if not equal:
        sys.exit("onnxsim's own check found a difference")
    simplified = ir.from_proto(found)
    simplified.metadata_props.clear()  # what onnxsim did, in more bytes than it spares
    simplified.metadata_props.update(model.metadata_props)
    for value in [value for value in simplified.graph.inputs if value.name in apart]:
        simplified.graph.inputs.remove(value)
        value.const_value = apart[str(value.name)]
        if value.uses():
            simplified.graph.register_initializer(value)
    graphs.save(simplified, place, source.parent)


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.simplify MODEL-VARIANT`."""
    if argv[:1] == [CHILD]:
        lifetime.end_with_parent(int(argv[1]))
        return _run_onnxsim(Path(argv[2]), Path(argv[3]))
    p = params.load()
    variants = plan.derive(p).variants
    line = variants[key_from(argv, "simplify", variants)]
    origin = layout.graphs(line.model, line.variant, "export")
    graph_set = graphs.read(origin)
    record = {}
    with new_folder(layout.graphs(line.model, line.variant, "simplify")) as folder:
        for name, graph in graph_set.graphs.items():
            why = simplify(origin / graph.file, graph, folder / graph.file, p.simplify, p.parity.tolerance)
            record[name] = {"simplified": why is None, "kept_because": why, **_sizes(origin, folder, graph)}
            print(f"{line.model} {line.variant} {name}: {why or 'simplified'} {record[name]}")
        graphs.write(folder, graph_set, origin)
        write_json(folder / "simplify.json", record)
    return None


def _sizes(origin: Path, folder: Path, graph: Graph) -> dict[str, int]:
    sizes = {}
    for when, where in (("before", origin), ("after", folder)):
        sizes[f"nodes_{when}"] = len(_nodes(where / graph.file))
        sizes[f"bytes_{when}"] = _total_bytes(where / graph.file, origin / graph.file)
    return sizes


if __name__ == "__main__":
    entrypoint(main)
