"""torch, and whether its CUDA build goes with the driver and the GPUs of this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from stages.core.errors import UserError
from stages.core.machine import Gpu, gpus
from stages.doctor import matrix, probe
from stages.doctor.finding import Finding
from stages.doctor.libraries import INSTALL
from stages.doctor.subject import Subject

ASK = "import json, torch as t; print(json.dumps([t.__version__, t.version.cuda, t.cuda.get_arch_list()]))"
ON_CPU = "Kiln's stages run torch on the CPU; on the GPU"
KERNEL = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)$")


def check(_subject: Subject) -> Iterator[Finding]:
    """Yield whether torch starts, and what keeps its CUDA build from each GPU."""
    try:
        version, cuda, kernels = probe.ask(ASK)
    except (UserError, ValueError) as e:
        yield Finding("torch", str(e), "blocks", "an import", "no checkpoint can be exported", INSTALL)
        return
    yield Finding("torch", version)
    for gpu in gpus():
        yield from _check_gpu(gpu, version, cuda, kernels)


def _check_gpu(gpu: Gpu, version: str, cuda: str | None, kernels: Sequence[str]) -> Iterator[Finding]:
    if cuda is None:
        found, fix = f"{version}, without CUDA", "install a CUDA build of torch, if torch is to use the GPU"
        yield Finding("torch", found, "warning", f"CUDA, for {gpu.name}", _fails("it does not run"), fix)
        return
    if (driver := matrix.load().cuda_drivers.get(int(cuda.partition(".")[0]))) and _older(gpu.driver, driver):
        found, consequence = f"driver {gpu.driver}", _fails("it says that the driver is too old")
        fix = "update the driver, or install torch for an older CUDA"
        yield Finding("torch", found, "warning", f"{driver} or newer, for CUDA {cuda}", consequence, fix)
    if not has_kernels(gpu.capability, kernels):
        found = f"{gpu.name} of compute capability {gpu.capability}"
        consequence = _fails("'no kernel image is available for execution on the device'")
        wanted, fix = f"one of {', '.join(kernels) or 'no'}", "install a torch that was built for it"
        yield Finding("torch", found, "warning", wanted, consequence, fix)


def _fails(how: str) -> str:
    return f"{ON_CPU} {how}"


def _older(found: str, wanted: str) -> bool:
    return matrix.version_key(found) < matrix.version_key(wanted)


def has_kernels(capability: str, kernels: Sequence[str]) -> bool:
    """Tell whether a GPU runs one of a build's kernels, named as torch names them, such as `sm_86` or `compute_120`.

    Machine code runs on GPUs of the same major and at least its minor version, that of one with a letter on its own
    alone; PTX, `compute_`, is translated for any newer GPU.
    """
    major, minor = (int(part) for part in capability.split("."))
    for kernel in kernels:
        if (match := KERNEL.match(kernel)) is None:
            continue
        built = int(match[2]), int(match[3])
        is_same = built == (major, minor)
        if is_same or (match[1] == "compute" and built <= (major, minor)):
            return True
        if not match[4] and built[0] == major and built[1] <= minor:
            return True
    return False
