"""What this machine is: its processor and its GPU."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

from stages.core.parallel import cores

CPU_INFO = Path("/proc/cpuinfo")
FAST_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")  # which multiply and add bytes without 16-bit sums between
FAST_BF16 = ("avx512_bf16", "amx_bf16")
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
    """Describe each CUDA device by name, compute capability and driver; `none` without one."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return done.stdout.strip() or "none"


def gpus() -> list[Gpu]:
    """List the CUDA devices."""
    lines = [line.rsplit(", ", 2) for line in gpu().splitlines()]
    return [Gpu(*line) for line in lines if len(line) == 3 and line[1][:1].isdigit()]
