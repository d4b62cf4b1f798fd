"""What this machine is: its processor and its GPU."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from stages.core.parallel import cores


def cpu() -> str:
    """Describe the processor: model, cores and the instruction sets that decide how fast INT8 is."""
    model, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in fields.items()}
        model, flags = fields.get("model name", model), fields.get("flags", "")
    wanted = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if flag in flags.split()]
    return f"{model}, {cores()} cores, {' '.join(wanted) or 'no AVX'}"


def gpu() -> str:
    """Describe each CUDA device by name, compute capability and driver; `none` without one."""
    query = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return done.stdout.strip() or "none"
