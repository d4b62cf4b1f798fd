"""Import one module of a package whose `__init__` imports everything."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec


def import_bare(package: str) -> None:
    """Register `package` without running its `__init__`, so that its submodules can be imported alone.

    FunASR's `__init__` imports every model it has and onnxsim's every quantizer, which takes 25 s and 11 s; the few
    modules that a stage uses take under 1 s and 4 s.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    if package in sys.modules:
        return
    spec: ModuleSpec | None = importlib.util.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(spec)
