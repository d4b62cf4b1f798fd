"""TorchScript, which FunASR's server with libtorch loads: the fp32 network as torch traced it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import from_library
from stages.core.graphs import Feeds, Graph, GraphSet, example_feeds
from stages.core.parity import Network

if TYPE_CHECKING:
    import torch

SUFFIX = ".torchscript"  # `model.torchscript` and `model_eb.torchscript` are the server's names


def why_unavailable() -> str | None:
    """Return None: torch is always here."""
    return None


def trace(module: torch.nn.Module, graph: Graph, place: Path) -> None:
    """Write a network to `place`, as it runs on inputs of usual sizes: those of later ones are free.

    Raises:
        UserError: torch cannot trace it.
    """
    import torch

    usual = example_feeds(graph, graph.usual_sizes, seed=0)
    with from_library(f"{place.name}: torch {torch.__version__} could not trace it"), _quiet(), torch.inference_mode():
        examples = tuple(torch.from_numpy(usual[name]) for name in graph.inputs)
        torch.jit.save(torch.jit.trace(module.eval(), examples, check_trace=False), place)  # type: ignore[no-untyped-call]


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out, within the block, torch's advice against TorchScript, which the server needs, and against constants.

    Constants of FunASR's layers do not depend on the inputs. What does shows in the accuracy, at lengths not traced.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Load every network of a folder, each as a function of named inputs.

    Raises:
        UserError: a file is broken.
    """
    import torch

    torch.set_num_threads(threads)

    def network(path: Path, graph: Graph) -> Network:
        with from_library(f"{path}: torch {torch.__version__} cannot load it"), _quiet():
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]

        def run(feeds: Feeds) -> Feeds:
            with from_library(f"{path}: torch cannot run it"), torch.inference_mode():
                found = module(*(torch.from_numpy(feeds[name]) for name in graph.inputs))
            outputs = found if isinstance(found, tuple) else (found,)
            return {name: output.numpy() for name, output in zip(graph.outputs, outputs, strict=True)}

        return run

    return {name: network(folder / Path(g.file).with_suffix(SUFFIX), g) for name, g in graph_set.graphs.items()}
