"""Run stages where the kernel ends whoever opens any socket but a local one: `python -m tests.guard STAGE@KEY ...`.

A seccomp filter needs no privileges, holds for native code and for every child, and nothing can catch its signal away:
looking up a name opens a socket too. What it cannot see is a name that is looked up in a file, such as `localhost`, or
through a daemon's local socket. Linux on x86-64 and ARM only.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import platform
import signal
import socket
import struct
import sys
from collections.abc import Sequence

import urllib3  # noqa: F401  when imported it binds a socket to the loopback, to learn whether there is IPv6

SOCKET = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}  # the system call and its architecture
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
TRAP, ALLOW = 0x00030000, 0x7FFF0000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # of the filter's language, BPF
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in what a filter sees of a call


def install() -> None:
    """Let this process and its children open local sockets only; another one ends them, and prints where it was."""
    call, architecture = SOCKET[platform.machine()]
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 0, 5, architecture),
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, call),
        (LOAD, 0, 0, FIRST_ARGUMENT),
        (EQUAL, 1, 0, socket.AF_UNIX),
        (RETURN, 0, 0, TRAP),
        (RETURN, 0, 0, ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = struct.pack("HL", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    faulthandler.register(signal.SIGSYS, all_threads=True, chain=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, MODE_FILTER, program, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the kernel took no filter")


def main(argv: Sequence[str]) -> None:
    """Run stages in this one process, which imports torch once."""
    install()
    gc.set_threshold(100_000)  # as in each stage's own process
    for stage in argv:
        name, _, key = stage.partition("@")
        importlib.import_module(f"stages.{name}").main([key] if key else [])


if __name__ == "__main__":
    main(sys.argv[1:])
