"""Stage `environment`: this machine's libraries, CPU and GPU, one small file each, that other stages depend on.

It always runs, in a fraction of a second; a file that did not change invalidates nothing. So a new
onnxruntime rebuilds what onnxruntime made, and another CPU measures its own latencies.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from stages.core import failures, layout, links, params, pins, plan
from stages.core.errors import entrypoint, refuse_arguments
from stages.core.files import new_folder
from stages.core.machine import cpu, gpu
from stages.core.params.origins import ModelScopeDataset
from stages.release import signature
from stages.runtimes import older, onnxruntime_cuda

LIBRARIES = (
    "torch",
    "funasr",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxsim",
    "wetext",
    "fast-ctc-decode",
    "kaldi-decoder",
    "kaldifst",
    "kaldilm",
    "openvino",
    "ai-edge-litert",
    "tensorrt-rtx-cu13-libs",
    "tensorrt",
)
ABSENT = "not installed"
DECLARED = "KILN_MACHINE"  # in the environment: facts that a build on a cluster declares, as JSON


def library(name: str) -> str:
    """Return the installed version of a distribution, or `not installed`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT


def facts() -> dict[str, str]:
    """Return what stages depend on, by name: library versions, the signing key, and the machine.

    Of a build on a cluster, some are those of the machines that its parts go to: `stages.cluster.machines`.
    """
    here = {name: library(name) for name in LIBRARIES} | {
        "older-onnxruntime": " ".join(older.versions()) or "none",
        onnxruntime_cuda.DISTRIBUTION: onnxruntime_cuda.version() or ABSENT,
        "signing-key": signature.fingerprint() or "none",
        "python": platform.python_version(),
        "cpu": cpu(),
        "gpu": gpu(),
    }
    declared: dict[str, str] = json.loads(os.environ.get(DECLARED, "{}"))
    return here | declared


def pinned(p: params.Params) -> dict[str, pins.Pinned]:
    """Return by name what no build starts without a lock file of: each model, and each data set of the hub."""
    data = {name: each for name, each in p.datasets.items() if isinstance(each, ModelScopeDataset)}
    return {**p.models, **data}


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.environment`; also checks the settings and pins/ before any stage works on them."""
    refuse_arguments(argv, "environment")
    p = params.load()
    plan.check(p)
    links.refuse()
    failures.clear()  # a build begins here
    for name, each in pinned(p).items():
        pins.demand(name, each)
    with new_folder(layout.ENVIRONMENT) as folder:
        for name, fact in facts().items():
            (folder / name).write_text(fact + "\n", encoding="utf-8")


if __name__ == "__main__":
    entrypoint(main)
