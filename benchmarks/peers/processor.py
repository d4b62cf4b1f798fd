"""What the tools' documentation lets depend on the processor."""

from pathlib import Path


def lacks_vnni() -> bool:
    """Return whether sums of 8-bit products overflow 16 bits on this processor; 7-bit weights avoid that."""
    return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
