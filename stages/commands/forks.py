"""Stages as forks of one process that has imported the large libraries, which takes each a second and more.

Twenty stages of ct_transformer take 65 s of CPU so, instead of 92. Python's fork server imports nothing of Kiln, so
every stage runs the code that is on the disk when it begins.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess

from stages.core import lifetime

LIBRARIES = ("numpy", "pydantic", "onnx", "onnxruntime", "onnxscript", "scipy.signal", "scipy.special", "torch.onnx")


def start(module: str, arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> BaseProcess:
    """Start `python -m MODULE ARGUMENTS` in a folder with an environment; the first call starts the fork server."""
    # The server, and so each fork, shows this to who looks for what a killed build left behind.
    os.environ.setdefault(lifetime.STAGE, environment[lifetime.STAGE])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    process = context.Process(target=_run, args=(module, arguments, folder, environment))
    process.start()
    return process


def _run(module: str, arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception:  # noqa: BLE001  as the interpreter does it, with the hook that a stage may have set
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
