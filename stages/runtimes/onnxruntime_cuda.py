"""ONNX Runtime on this machine's first CUDA device.

Its package and the CPU's share one import name, so `make .venv/extra-cuda` puts it into a folder of its own. A process
that uses it uses it for the CPU too: what is compared there is one version's.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from stages.core import layout
from stages.core.graphs import GraphSet
from stages.core.machine import why_no_gpu
from stages.core.parity import Network
from stages.runtimes import onnxruntime

FOLDER = layout.CACHE / "onnxruntime" / "cuda"
PACKAGE, DISTRIBUTION = "onnxruntime", "onnxruntime-gpu"
NAME = "CUDAExecutionProvider"
# fp32 stays fp32: with tf32, the default, ten bits of a product's factors are left. A convolution's algorithm is chosen
# by a rule: by default all are tried for each new length, and speech has a new one every time; on an H200 that took a
# second of Paraformer-large's first run. FSMN-VAD in fp16, whose chunks are all of one length, loses by the rule: it
# takes 2.8 ms in place of 0.4.
PROVIDER: onnxruntime.Provider = (NAME, {"device_id": "0", "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})


def why_unavailable() -> str | None:
    """Explain why nothing here runs graphs on a CUDA device, or return None, with the library imported."""
    if (why := why_no_gpu()) is not None:
        return why
    library = import_library()
    if NAME not in library.get_available_providers():
        return f"ONNX Runtime {library.__version__} is here without {NAME}; install it: `make .venv/extra-cuda`"
    return None


def version() -> str | None:
    """Return the version of the installed extra, or None."""
    return next((found.version for found in distributions(name=DISTRIBUTION, path=[str(FOLDER)])), None)


def import_library() -> Any:
    """Import ONNX Runtime for CUDA where the extra is installed, else the CPU's, unless one is imported already."""
    if PACKAGE not in sys.modules and (place := FOLDER / PACKAGE / "__init__.py").is_file():
        _import_from(place.resolve())
    return importlib.import_module(PACKAGE)


def _import_from(place: Path) -> None:
    """Import the package of this `__init__.py`, and the CUDA libraries that were installed beside it."""
    spec = importlib.util.spec_from_file_location(PACKAGE, place)
    module = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]  # a file has one
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    module.preload_dlls()


def load(folder: Path, graph_set: GraphSet, threads: int = 1) -> dict[str, Network]:
    """Load every graph of a folder, each as a function of named inputs; threads: of what stays on the CPU.

    Raises:
        UserError: as in `onnxruntime.network`, or the device cannot be used.
    """
    import_library()
    return onnxruntime.load(folder, graph_set, threads, provider=PROVIDER)
