"""No process outlives the one that it works for: DVC with its build, a stage with its DVC, a child with its stage."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

SECONDS = 0.5  # between two looks
SET_PARENT_DEATH_SIGNAL = 1  # of prctl(2)
STAGE = "DVC_STAGE"  # the environment variable by which DVC tells a stage its name
OUR_DVC = "stages.commands.dvc"  # which runs DVC in its own process
IDLE = 0.002  # of the time: the share of a processor that what transfers nothing uses less than
PATIENCE = 10.0  # seconds that a process gets to end


def end_with_parent(pid: int) -> None:
    """End this process when its parent, whose process id is `pid`, ends.

    Linux does so by itself, also while native code keeps all Python threads from running.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    _end_unless(lambda: os.getppid() == pid)


def end_with_dvc() -> None:
    """End this process when the `dvc` that runs it as a stage ends: a killed DVC leaves its children running.

    All processes up to the nearest DVC are watched, because DVC starts a shell that starts the stage. None above it is:
    a shell from which a build was detached may end.
    """
    above = psutil.Process().parents()
    nearest = next((number for number, process in enumerate(above) if is_dvc(process)), None)
    if nearest is not None:
        _end_unless(lambda: all(map(_is_alive, above[: nearest + 1])))


def _end_unless(condition: Callable[[], bool]) -> None:
    """End this process, from a thread, once the condition does not hold."""

    def watch() -> None:
        while condition():
            waiting.wait(SECONDS)
        os._exit(1)

    waiting = threading.Event()
    threading.Thread(target=watch, daemon=True, name="lifetime").start()


@contextmanager
def ended_when_idle(
    process: psutil.Process, seconds: float | None, *, unless: Callable[[], bool]
) -> Iterator[threading.Event]:
    """End a process, and all that it started, that hardly used a processor for so many seconds while the block lasts.

    Yields an event, set once that was done. unless: tells that it may be idle, as it waits for another process.
    """
    is_over, is_ended, patience = threading.Event(), threading.Event(), seconds or 0.0

    def watch() -> None:
        used, since = 0.0, time.monotonic()
        while not is_over.wait(SECONDS):
            with suppress(psutil.Error):
                now = sum(process.cpu_times()[:2])
                if unless() or now - used > IDLE * patience:
                    used, since = now, time.monotonic()
                elif time.monotonic() - since > patience:
                    is_ended.set()
                    end([process])
                    return

    if seconds is not None:
        threading.Thread(target=watch, daemon=True, name="idle").start()
    try:
        yield is_ended
    finally:
        is_over.set()


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def command_line(process: psutil.Process) -> list[str]:
    """Return a process's command line, or nothing of one that is gone or another user's."""
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


def is_dvc(process: psutil.Process) -> bool:
    """Tell whether a process is DVC, by its command line."""
    return any(Path(part).name == "dvc" or part == OUR_DVC for part in command_line(process)[:3])


def dvc_in(folder: Path) -> list[psutil.Process]:
    """List the processes of DVC that work in a folder."""
    return [process for process in _processes_in(folder) if is_dvc(process)]


def left_behind_in(folder: Path) -> list[psutil.Process]:
    """List stages that work in a folder and whose DVC is gone: they end within a second, or hang."""
    return [process for process in _processes_in(folder) if _is_left_behind(process)]


def _is_left_behind(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return STAGE in process.environ() and not any(map(is_dvc, [process, *process.parents()]))
    return False


def _processes_in(folder: Path) -> Iterator[psutil.Process]:
    """Yield what else runs in a folder or below; processes of others, which cannot be asked, are left out."""
    own = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid not in own and _is_alive(process) and Path(process.cwd()).is_relative_to(folder):
                yield process


def describe(process: psutil.Process) -> str:
    """Return a process's id and command line."""
    return f"process {process.pid} (`{' '.join(command_line(process))[:120]}`)"


def end(processes: Sequence[psutil.Process]) -> None:
    """End processes and all that they started, first politely; those given first, so that they start no others."""
    family = [*processes]
    for process in processes:
        with suppress(psutil.Error):
            family += process.children(recursive=True)
    for process in family:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
