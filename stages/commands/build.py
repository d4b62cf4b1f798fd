"""A build under way: DVC's processes, a log of every word of theirs, and what a person is shown of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil
from rich.console import Console

from stages.commands import dvc
from stages.commands.display import Display, Lines, Terminal
from stages.commands.tally import Running, Tally
from stages.core import layout, lifetime

KEPT = 10  # logs of the last builds
WIDTH = 120  # of the terminal that a stage sees
COLOUR = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
BEGUN = re.compile(r"Running stage '(?:.*:)?(.+)':")
SKIPPED = re.compile(r"Stage '(?:.*:)?(.+)' (didn't change|is cached)")
ENDED = re.compile(r"(?:Updating|Generating) lock file ")
FAILED = re.compile(r"WARNING: failed to run: |ERROR: failed to reproduce ")
ONE = re.compile(r"ERROR: failed to reproduce '(?:[^':]*:)?([^']+)'")
SEVERAL = re.compile(r"ERROR: failed to reproduce stages: (.*)")


class Build:
    """What is known of a build; `run` may be called from several threads."""

    def __init__(self, display: Display, tally: Tally, log: IO[str]) -> None:
        """Begin with nothing under way; all that DVC says goes into the log."""
        self.display, self.tally, self.log = display, tally, log
        self.errors: list[str] = []  # what DVC complained of that is no stage's failure
        self.is_stopped = False
        self._processes: list[psutil.Process] = []

    def run(
        self,
        arguments: Sequence[str],
        *,
        forked: bool = False,
        patience: float | None = None,
    ) -> int:
        """Run DVC with these arguments and return its status; negative is the signal that ended it.

        forked: start its stages as forks of one process, which pays for many. patience: seconds of idleness between
        stages after which it is ended: its remote does not answer.
        """
        with self.tally.lock:
            if self.is_stopped:
                return 1
            ours, theirs = os.openpty() if isinstance(self.display, Terminal) else os.pipe()
            process = subprocess.Popen(
                dvc.command(arguments, forked=forked),
                stdout=theirs,
                stderr=theirs,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            self._processes.append(psutil.Process(process.pid))
        if os.isatty(theirs):
            termios.tcsetwinsize(theirs, (24, WIDTH))
        os.close(theirs)
        reader = _Reader(self)
        watched = lifetime.ended_when_idle(self._processes[-1], patience, unless=lambda: reader.running is not None)
        with watched as is_stalled, os.fdopen(ours, "rb", buffering=0) as stream:
            for text, is_whole in _pieces(stream):
                with self.tally.lock:
                    reader.take(text, is_whole=is_whole)
        with self.tally.lock:
            reader.finish()
            if is_stalled.is_set():
                self.errors.append(f"ERROR: DVC's remote did not answer for {patience:.0f} s")
        return process.wait()

    def stop(self) -> None:
        """End all of DVC's processes that run, and all that they started."""
        with self.tally.lock:
            self.is_stopped = True
        lifetime.end(self._processes)

    def write(self, who: str, line: str) -> None:
        """Write a line of a stage's, or of DVC's own, into the log."""
        self.log.write(f"{who}: {line}\n")
        self.log.flush()


class _Reader:
    """Follows what one process of DVC says: which stage runs, and how it ends."""

    def __init__(self, build: Build) -> None:
        self.build, self.tally = build, build.tally
        self.running: Running | None = None
        self.said: dict[str, list[str]] = {}  # all lines of each stage that ran
        self.is_error = False

    def take(self, text: str, *, is_whole: bool) -> None:
        """Take a line, or what a line shows that will be written over."""
        if not is_whole:
            if self.running and text.strip():
                self.running.doing = " ".join(text.split())
            return
        begun, skipped = BEGUN.match(text), SKIPPED.match(text)
        if begun or skipped or ENDED.match(text):
            self.finish()
        if begun:
            self.running = self.tally.begin(begun[1])
        elif skipped:
            self.tally.skip(skipped[1], restored=skipped[2] == "is cached")
        self.build.write(self.running.stage if self.running else "dvc", text)
        if FAILED.match(text):
            self._fail(text)
        elif self.running and not begun:
            self.running.lines.append(text)
        elif not self.running:
            self._complain(text)

    def _fail(self, text: str) -> None:
        """Note which stages failed: DVC names the one that runs by its command, at the end all by their names."""
        one, several = ONE.match(text), SEVERAL.match(text)
        names = [one[1]] if one else re.findall(r"'(?:[^':]*:)?([^']+)'", several[1]) if several else []
        if self.running:
            names.append(self.running.stage)
            self.running.lines.append(text)
            self.said[self.running.stage] = self.running.lines
            self.finish("failed after ")
        for name in names:
            self.tally.fail(name, self.said.get(name, [text]))

    def _complain(self, text: str) -> None:
        self.is_error = self.is_error or text.startswith("ERROR:")
        if self.is_error:
            self.build.errors.append(text)

    def finish(self, how: str = "") -> None:
        """End the stage that runs, if one does."""
        if self.running:
            self.said[self.running.stage] = self.running.lines
            self.tally.finish(self.running)
            self.build.display.finished(self.tally, self.running, how)
        self.running = None


def _pieces(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Yield each line as a terminal would show it at its end, and in between what the last one shows."""
    rest = b""
    with suppress(OSError):  # a terminal whose other end is closed
        while data := stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            yield from ((_shown(line.removesuffix(b"\r")), True) for line in lines)
            if b"\r" in rest:
                yield _shown(rest.removesuffix(b"\r")), False
                rest = rest[rest.rindex(b"\r") :]
    if rest:
        yield _shown(rest), True


def _shown(line: bytes) -> str:
    return COLOUR.sub("", line.rpartition(b"\r")[2].decode(errors="replace"))


@contextmanager
def supervise(arguments: Sequence[str]) -> Iterator[Build]:
    """Yield a build that is shown, and that ends with this block with all that it started.

    The log's path is printed first, and what became of the build last.
    """
    layout.BUILDS.mkdir(parents=True, exist_ok=True)
    for old in sorted(layout.BUILDS.glob("*.log"))[: 1 - KEPT]:
        old.unlink()
    place = layout.BUILDS / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{os.getpid()}.log"
    print(f"log: {place}", flush=True)
    tally = Tally(arguments)
    console = Console(highlight=False)
    with place.open("w", encoding="utf-8") as log:
        build = Build(Terminal(console) if console.is_terminal else Lines(), tally, log)
        is_over = False
        try:
            with build.display.shown(tally):
                yield build
            is_over = True
        finally:
            build.stop()
            tally.keep()
            conclude(build, place, is_over=is_over)


def conclude(build: Build, log: Path, *, is_over: bool) -> None:
    """Print what failed in full, then what was built in how long, by a build that is over or was stopped."""
    tally = build.tally
    for stage, lines in tally.failed.items():
        print("\n".join([f"\n{stage} failed:", *(f"  {line}" for line in lines)]), file=sys.stderr)
    print("\n".join(build.errors), end="\n" if build.errors else "", file=sys.stderr, flush=True)
    made = len(tally.ran.keys() - tally.failed.keys() - {"environment"})
    took = f"{tally.elapsed:.1f} s; log: {log}"
    if is_over and not (made or tally.restored or tally.failed or build.errors):
        print(f"nothing to build: {len(tally.seen)} stages are up to date, {took}")
        return
    counts = {"ran": made, "restored from DVC's cache": len(tally.restored), "failed": len(tally.failed)}
    said = [f"{count} {what}" for what, count in counts.items() if count]
    print(", ".join([*([] if is_over else ["stopped"]), *(said or ["nothing was built"]), took]))
