"""What this machine is: its processor and its GPU."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

from stages.core.parallel import cores

CPU_INFO = Path("/proc/cpuinfo")
SECONDS = 20  # for nvidia-smi, which waits for a driver that hangs
FAST_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")  # which multiply and add bytes without 16-bit sums between
FAST_BF16 = ("avx512_bf16", "amx_bf16")
HIDDEN = {"", "-1", "NoDevFiles"}  # in CUDA_VISIBLE_DEVICES, in the first place: no device is visible
INSTRUCTIONS = ("avx2", "avx512f", *FAST_INT8, *FAST_BF16)


class Gpu(NamedTuple):
    """A CUDA device: compute capability as in `8.6`, driver as in `580.65.06`."""

    name: str
    capability: str
    driver: str


def cpu() -> str:
    """Describe the processor: model, cores and the instruction sets that decide how fast INT8 and bf16 are."""
    model = _cpu_info().get("model name", platform.processor() or platform.machine())
    return f"{model}, {cores()} cores, {' '.join(instructions()) or 'no AVX'}"


def name() -> str:
    """Describe this machine for what is measured on it, without its host name: reports and releases are published."""
    return f"{cpu()}; GPU: {gpu()}"


def instructions() -> list[str]:
    """List the instruction sets that decide how fast INT8 and bf16 are, of those that the processor has."""
    flags = _cpu_info().get("flags", "").split()
    return [flag for flag in INSTRUCTIONS if flag in flags]


def _cpu_info() -> dict[str, str]:
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in fields.items()}


def gpu() -> str:
    """Describe each CUDA device by name, compute capability and driver; `none` without one.

    It is what the machine has: of a cluster's tasks Ray hides the devices from those that asked for none.
    """
    described, _ = _ask_for_gpus()
    return described or "none"


def why_no_gpu() -> str | None:
    """Explain why this process has no CUDA device, in the driver's words where it has some, or return None."""
    described, why = _ask_for_gpus()
    if described and _are_hidden():
        return "no CUDA device: CUDA_VISIBLE_DEVICES hides all"
    return None if described else ": ".join(filter(None, ["no CUDA device", why]))


def _are_hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip() in HIDDEN


def _ask_for_gpus() -> tuple[str, str]:
    """Return what nvidia-smi says of each device and, where it says nothing, what keeps it from that if it is known."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return "", f"nvidia-smi gave no answer in {SECONDS} s"
    except OSError:  # it is not installed
        return "", ""
    if done.returncode:
        return "", f"nvidia-smi says: {' '.join(f'{done.stdout} {done.stderr}'.split())[:200]}"
    return done.stdout.strip(), ""


def gpus() -> list[Gpu]:
    """List the CUDA devices that this process may use."""
    lines = [] if _are_hidden() else [line.rsplit(", ", 2) for line in gpu().splitlines()]
    return [Gpu(*line) for line in lines if len(line) == 3 and line[1][:1].isdigit()]
