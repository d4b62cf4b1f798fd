"""What the tools' documentation lets depend on the processor."""

from pathlib import Path


def lacks_vnni() -> bool:
    """Whether sums of products of 8-bit numbers overflow 16 bits here: then weights are best of 7 bits."""
    return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
