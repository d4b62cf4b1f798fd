"""Programs that work for this process: each has its time, and none outlives it, nor what it started itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

from stages.core import lifetime
from stages.core.errors import UserError

Done = subprocess.CompletedProcess[str]
# Begins a process, which then becomes the program, and sets what the program keeps. Not by `preexec_fn`, which may hang
# where other threads run.
BEGIN = f"""
import ctypes, os, resource, signal, sys
parent, size, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl({lifetime.SET_PARENT_DEATH_SIGNAL}, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("its parent had ended")
if int(size):
    resource.setrlimit(resource.RLIMIT_AS, (int(size), int(size)))
os.execvp(command[0], command)
"""


def run(
    command: Sequence[str],
    seconds: float | None,
    *,
    memory_gib: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run a program and return its status and what it printed.

    seconds: after which it and all that it started are ended, as they are when this process is interrupted; on Linux it
    also ends when this process is killed. None, for what works within a process that has a limit.
    memory_gib: of addresses, beyond which it gets none.

    Raises:
        UserError: its time was over.
    """
    size = int((memory_gib or 0) * 2**30)
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", BEGIN, str(os.getpid()), str(size), *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as e:
            _end(process.pid)
            raise UserError(f"ran for over {seconds:g} s and was stopped") from e
        except BaseException:
            _end(process.pid)
            raise
    return Done(command, process.returncode, out, err)


def why_failed(done: Done) -> str | None:
    """Return why a program failed, the signal that ended it or the last line of its errors, or None."""
    if done.returncode < 0:
        return f"died of signal {-done.returncode}"
    return (done.stderr.strip().splitlines() or ["no message"])[-1] if done.returncode else None


def _end(pid: int) -> None:
    with suppress(psutil.Error):
        lifetime.end([psutil.Process(pid)])
