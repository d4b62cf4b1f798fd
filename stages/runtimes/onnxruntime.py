"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages.core import graphs
from stages.core.errors import UserError
from stages.core.graphs import Feeds, Graph, GraphSet
from stages.core.parity import Network

if TYPE_CHECKING:
    import onnxruntime


def session(
    model: Path | bytes, threads: int = 1, *, prepacked: bool = True, weights: Path | None = None
) -> onnxruntime.InferenceSession:
    """A CPU session whose threads stop spinning when a run ends: else they take the cores of another live session.

    prepacked: with weights laid out for the CPU beforehand, which pays after some twenty runs of a large model.
    weights: the folder with the large weights of a graph; by default where its graph set says.

    Raises:
        UserError: the file is truncated, not ONNX, or uses what this ONNX Runtime lacks.
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
    try:
        return ort.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except MemoryError:
        raise
    except Exception as e:  # it has a dozen kinds of its own, and no base but this
        raise UserError(f"{_what(model)}: ONNX Runtime {ort.__version__} cannot load it: {e}") from e


def _what(model: Path | bytes) -> Path | str:
    return "the graph" if isinstance(model, bytes) else model


def network(
    model: Path | bytes, graph: Graph, threads: int = 1, *, prepacked: bool = True, weights: Path | None = None
) -> Network:
    """The graph as a function of named inputs; the rest as in `session`.

    Raises:
        UserError: it cannot be loaded, or, when it is called, not run.
    """
    live, names = session(model, threads, prepacked=prepacked, weights=weights), list(graph.outputs)

    def run(feeds: Feeds) -> Feeds:
        try:
            outputs = live.run(names, feeds)
        except MemoryError:
            raise
        except Exception as e:
            raise UserError(f"{_what(model)}: ONNX Runtime cannot run it: {e}") from e
        return dict(zip(names, outputs, strict=True))

    return run


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Every graph of a folder."""
    return {name: network(folder / graph.file, graph, threads) for name, graph in graph_set.graphs.items()}
