"""ONNX Runtime's own file format, `.ort`, for its builds that have few operators and read no ONNX.

Beside each file lies the list of operators that such a build needs: `build.sh --include_ops_by_config` takes it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

from stages.core.errors import from_library
from stages.core.files import write_text
from stages.core.graphs import GraphSet
from stages.core.parity import Network
from stages.runtimes import onnxruntime

SUFFIX, OPERATORS = ".ort", ".required_operators.config"


def why_unavailable() -> str | None:
    """Return None: what runs ONNX graphs runs these too."""
    return None


def build(onnx: Path, place: Path) -> dict[str, Any]:
    """Write a graph to `place`, optimized for any processor, and the operators that it needs beside it.

    Raises:
        UserError: ONNX Runtime refuses the graph.
    """
    import onnxruntime as ort
    from onnxruntime.tools import convert_onnx_models_to_ort as converter

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)  # which names the scratch folder
    with (
        tempfile.TemporaryDirectory(dir=place.parent) as scratch,
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(),
        from_library(f"{onnx}: ONNX Runtime {ort.__version__} could not convert it"),
    ):
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves files open
        styles = [converter.OptimizationStyle.Fixed]
        converter.convert_onnx_models_to_ort(onnx, Path(scratch), optimization_styles=styles)
        made = Path(scratch) / onnx.name
        made.with_suffix(SUFFIX).rename(place)
        listed = made.with_suffix(OPERATORS).read_text(encoding="utf-8").splitlines(keepends=True)
    # Its comments name the scratch folder.
    write_text(place.with_suffix(OPERATORS), "".join(line for line in listed if not line.startswith("#")))
    return {"version": ort.__version__}


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Load every graph of a folder, each as a function of named inputs.

    Raises:
        UserError: as in `onnxruntime.network`.
    """
    graphs_of = graph_set.graphs.items()
    return {name: onnxruntime.network(folder / Path(g.file).with_suffix(SUFFIX), g, threads) for name, g in graphs_of}
