"""What is measured: each model's graphs in fp32 and fp16, of the miniatures and of the large models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stages.core import graphs, layout
from stages.core.errors import UserError
from stages.core.graphs import GraphSet
from stages.core.params import Params
from stages.reporting import results

PRECISIONS = ("fp32", "fp16")
SKELETONS = layout.CACHE / "gpu" / "skeletons"
FILLED = layout.CACHE / "gpu" / "filled"


class Subject(NamedTuple):
    """A model's graphs by precision; `is_large`: with random weights, of the catalogue."""

    name: str
    folders: Mapping[str, Path]
    is_large: bool

    @property
    def graph_set(self) -> GraphSet:
        """Read what both precisions have in common."""
        return graphs.read(self.folders["fp32"])

    @property
    def digest(self) -> str:
        """Compute the digest of the fp16 graphs, as the report has that of a build's artifact."""
        digest: str = results.artifact(self.folders["fp16"])["sha256"]
        return digest


def miniatures(p: Params) -> Iterator[Subject]:
    """Yield the models that are built here."""
    for model in p.models:
        folders = [layout.graphs(model, "dense", graph) for graph in ("export", "fp16")]
        if all(folder.is_dir() for folder in folders):
            yield Subject(model, dict(zip(PRECISIONS, folders, strict=True)), is_large=False)


def large() -> Iterator[Subject]:
    """Yield the large models whose skeletons are here."""
    for folder in sorted(SKELETONS.glob("*")):
        places = {precision: FILLED / folder.name / precision for precision in PRECISIONS}
        yield Subject(folder.name, places, is_large=True)


def find(p: Params, name: str) -> Subject:
    """Return a subject by name.

    Raises:
        UserError: there is none.
    """
    known = {subject.name: subject for subject in (*miniatures(p), *large())}
    if name not in known:
        raise UserError(f"benchmarks.gpu: found no graphs of {name!r}, wanted one of {', '.join(known) or 'none'}")
    return known[name]
