"""ONNX Runtime: on the CPU, or on another of its providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core import graphs
from stages.core.errors import UserError, from_library
from stages.core.graphs import Feeds, Graph, GraphSet, Tensor
from stages.core.parity import Network

if TYPE_CHECKING:
    import onnxruntime

Provider = tuple[str, dict[str, str]]  # what computes, by ONNX Runtime's name, and its options
CPU: Provider = ("CPUExecutionProvider", {})
DTYPES = {"tensor(float)": "float32"} | {f"tensor({name})": name for name in ("bool", "int32", "int64")}


def session(
    model: Path | bytes,
    threads: int = 1,
    *,
    prepacked: bool = True,
    weights: Path | None = None,
    provider: Provider = CPU,
) -> onnxruntime.InferenceSession:
    """Open a session whose CPU threads stop spinning after a run: else they take cores from other live sessions.

    prepacked: with weights laid out for the CPU beforehand, which pays after some twenty runs of a large model.
    weights: the folder with the large weights of a graph; by default where its graph set says.

    Raises:
        UserError: the file is truncated, not ONNX, or uses what this ONNX Runtime lacks; or the provider cannot work.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", "0" if prepacked else "1")
    if isinstance(model, Path):
        folder = str(weights or graphs.weights_folder(model))
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    with from_library(f"{_describe_model(model)}: ONNX Runtime {ort.__version__} cannot load it"):
        given = model if isinstance(model, bytes) else str(model)
        live = ort.InferenceSession(given, options, providers=[provider])
    if provider[0] not in live.get_providers():  # it fell back to the CPU, with a warning
        raise UserError(
            f"{_describe_model(model)}: found that {provider[0]} cannot work here, wanted its device and libraries"
        )
    return live


def _describe_model(model: Path | bytes) -> Path | str:
    return "the graph" if isinstance(model, bytes) else model


def network(
    model: Path | bytes,
    graph: Graph,
    threads: int = 1,
    *,
    prepacked: bool = True,
    weights: Path | None = None,
    provider: Provider = CPU,
) -> Network:
    """Load a graph as a function of named inputs; the arguments are those of `session`.

    Raises:
        UserError: it cannot be loaded, has other inputs or outputs than declared, or, when it is called, cannot be run.
    """
    live = session(model, threads, prepacked=prepacked, weights=weights, provider=provider)
    names = list(graph.outputs)
    for kind, declared, found in (
        ("inputs", graph.inputs, live.get_inputs()),
        ("outputs", graph.outputs, live.get_outputs()),
    ):
        _check_signature(f"{_describe_model(model)} {kind}", declared, found)

    def run(feeds: Feeds) -> Feeds:
        with from_library(f"{_describe_model(model)}: ONNX Runtime cannot run it"):
            return dict(zip(names, live.run(names, feeds), strict=True))

    return run


def check(place: Path) -> None:
    """Load a graph, and run it once on the shortest inputs where the graph set beside it says what these are.

    Raises:
        UserError: as in `network`.
    """
    if (graph := graphs.declared(place)) is None:
        session(place, prepacked=False)
        return
    shortest = {name: axis.min for name, axis in graph.axes.items()}
    network(place, graph, prepacked=False)(graphs.example_feeds(graph, shortest, seed=0))


def _check_signature(where: str, declared: Mapping[str, Tensor], found: Sequence[onnxruntime.NodeArg]) -> None:
    """Raise UserError unless the inputs or outputs of a session are those of its graph set, by name, type and rank."""
    wanted = {name: (tensor.dtype, len(tensor.shape)) for name, tensor in declared.items()}
    has = {one.name: (DTYPES.get(one.type, one.type), len(one.shape)) for one in found}
    if has != wanted:
        raise UserError(f"{where}: found {has}, wanted {wanted}; run `dvc repro` again")


def load(folder: Path, graph_set: GraphSet, threads: int = 1, provider: Provider = CPU) -> dict[str, Network]:
    """Load every graph of a folder, each as a function of named inputs."""
    graphs_of = graph_set.graphs.items()
    return {name: network(folder / graph.file, graph, threads, provider=provider) for name, graph in graphs_of}
