"""Disk, memory and processor: what the configured builds need of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from stages.core import layout, pins
from stages.core.errors import UserError
from stages.core.machine import FAST_INT8, cpu, instructions
from stages.core.parallel import cores
from stages.core.params.recipes import DynamicRecipe, StaticRecipe
from stages.doctor import matrix
from stages.doctor.finding import Finding, level
from stages.doctor.subject import Subject

GB = 1e9
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container
MADE = (layout.ARTIFACTS, layout.CACHE, Path(".dvc/cache"))
AT_ONCE = 2  # models for each core, and one: as `side_by_side` builds them


def check(subject: Subject) -> Iterator[Finding]:
    """Yield whether disk and memory suffice, and what the processor lacks for INT8."""
    sizes = list(_checkpoint_sizes(subject))
    yield _disk(sizes)
    yield _memory(sizes)
    yield from _processor(subject)


def _checkpoint_sizes(subject: Subject) -> Iterator[float]:
    """Yield the GB of each model's checkpoint, of those that are pinned."""
    for name in subject.models:
        try:
            pin = pins.read(name)
        except UserError:  # which the check of checkpoints tells
            continue
        yield sum(file.size for file in pin.files.values()) / GB if pin else 0.0


def _disk(sizes: list[float]) -> Finding:
    """Compare the free disk with what the artifacts and caches of all models take, less what they take now."""
    needs = matrix.load().disk
    whole = needs.data + needs.per_checkpoint * sum(sizes)
    missing = max(0.0, whole - sum(map(_size, MADE)))
    free = shutil.disk_usage(Path.cwd()).free / GB
    found, wanted = f"{free:.1f} GB free", f"{missing:.1f} GB more, of {whole:.1f} GB for all"
    if free >= missing:
        return Finding("disk", f"{found}; a build needs {wanted}")
    return Finding("disk", found, "blocks", wanted, "the build ends when the disk is full", "free some")


def _size(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / GB if folder.is_dir() else 0.0


def _memory(sizes: list[float]) -> Finding:
    """Compare the memory with what the largest model takes, and with what those take that are built at once."""
    needs = matrix.load().memory
    each = sorted((max(needs.process, needs.per_checkpoint * size) for size in sizes), reverse=True)
    least, most = max(each, default=needs.process), sum(each[: AT_ONCE * cores() + 1])
    has, free = limit() / GB, min(limit(), psutil.virtual_memory().available) / GB
    found = f"{has:.1f} GB, {free:.1f} GB available"
    if free >= most:
        return Finding("memory", f"{found}; a first build takes up to {most:.1f} GB")
    wanted = f"{least:.1f} GB for the largest model, {most:.1f} GB for those that a first build makes at once"
    consequence = "the system ends stages of the build"
    one_by_one = "build one target after another (`kiln repro report@cpu_fp32`), or "
    fix = f"{one_by_one if has >= least else ''}add memory"
    return Finding("memory", found, level(blocks=has < least), wanted, consequence, fix)


def limit() -> float:
    """Return the bytes of memory that this process may use: the machine's or its container's."""
    limits = [place.read_text().strip() for place in LIMITS if place.is_file()]
    return min([psutil.virtual_memory().total, *(int(each) for each in limits if each.isdigit())])


def _processor(subject: Subject) -> Iterator[Finding]:
    """Yield what a processor without fast INT8 costs the builds that are INT8, and the recipes that go wrong on it."""
    recipes = subject.recipes("onnxruntime").items()
    integer = {name: recipe for name, recipe in recipes if isinstance(recipe, DynamicRecipe | StaticRecipe)}
    has, speed = instructions(), matrix.load().int8_speedup
    if not integer or set(has) & set(FAST_INT8):
        yield Finding("cpu", cpu())
        return
    wanted, fix = f"one of {', '.join(FAST_INT8)}", "measure on the processor that will serve"
    slow = f"{speed.avx2}x" if "avx2" in has else "at an unknown speed"
    consequence = f"INT8 runs {slow} where {speed.vnni}x was measured (Paraformer-large); a gate on speed may close"
    yield Finding("cpu", cpu(), "warning", wanted, consequence, fix)
    wide = [name for name, recipe in integer.items() if not recipe.reduce_range]
    if wide:
        found = f"{', '.join(wide)}: 8-bit weights on {cpu()}"
        consequence = "16-bit sums overflow and nothing says so: FSMN-VAD lost 0.066 of its agreement"
        yield Finding("cpu", found, "warning", "reduce_range: true", consequence, "quantize.recipes of params.yaml")
