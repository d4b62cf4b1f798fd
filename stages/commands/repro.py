"""Build all that changed and can be built, measure it, say what cannot be and why, and release what passed."""

from __future__ import annotations

import fcntl
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import psutil

from stages.commands import heal
from stages.commands.build import Build, supervise
from stages.core import failures, layout, lifetime, links, params, plan
from stages.core.errors import UserError
from stages.summary import show

EXAMPLE = "kiln repro report@cpu_int8"
INTERRUPTED = 130
KEEP_GOING = ["repro", "--keep-going"]
PULL = "--pull"
REMOTE_SECONDS = 30.0  # for DVC's remote to answer at all


def add_arguments(parser: ArgumentParser) -> None:
    """Take the address of a cluster; leave all other arguments to `dvc repro`: targets and options."""
    parser.usage = "kiln repro [-h] [--ray ADDRESS] [TARGET or option of `dvc repro` ...]"
    parser.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster whose machines build what is stale")
    parser.set_defaults(for_dvc=[])


def run(arguments: Namespace) -> None:
    """Run `kiln repro` with the arguments for `dvc repro`."""
    repro(arguments.for_dvc, arguments.ray)


def repro(arguments: Sequence[str], ray: str | None = None) -> None:
    """Run `dvc repro` with the arguments, and show the table of the last summary.

    Without arguments but `--pull`, a failed stage keeps back only what needs it: reports, releases and the gate's
    verdict are made of all else. ray: the address of a cluster that builds what it can before.

    Raises:
        UserError: another build runs here, DVC is set to make links of artifacts, or the cluster cannot build.
        SystemExit: with 1 where anything failed or the gate is closed, with 128 and the signal where one ended it; what
            was built stays, and the next build goes on from there.
    """
    refuse_busy()
    with _alone():
        plan.write(params.load())
        links.refuse()
        arguments = _without_dead_remote(arguments)
        if ray:
            from stages.commands import fan_out

            fan_out.refuse()
        with _ended_by_signals(), supervise(arguments) as build:
            status = _build(build, arguments, ray)
    if status == 0:
        heal.remember()
    if layout.SUMMARY.is_file():
        show()
    raise SystemExit(1 if status else 0)


def _without_dead_remote(arguments: Sequence[str]) -> Sequence[str]:
    """Take `--pull` out of the arguments, with a line, where the remote gives nothing: DVC would end with an error.

    So it is for who has no credentials, such as the CI of a fork.
    """
    if PULL not in arguments:
        return arguments
    from stages.doctor import network  # a second

    if (why := network.explain_no_remote(REMOTE_SECONDS)) is None:
        return arguments
    print(f"nothing is restored from DVC's remote: {why}", flush=True)
    return [argument for argument in arguments if argument != PULL]


def _build(build: Build, arguments: Sequence[str], ray: str | None) -> int:
    start = time.time()
    is_first = not ray and not arguments and not layout.SUMMARY.exists()
    if ray:
        from stages.commands.fan_out import fan_out

        if not fan_out(build, ray, arguments):
            return 1
    elif is_first:
        from stages.commands.side_by_side import side_by_side

        if not side_by_side(build):
            return 1
    status = _run(build, [*KEEP_GOING, *arguments], forked=is_first)
    if status and not {*arguments} - {PULL} and _has_begun(start):
        failures.note_crashed()
        if (failed := failures.known()) and "environment" not in failed:
            _conclude(build)
    return status


def refuse_busy() -> None:
    """Raise UserError if another build runs here; what a killed one left gets the time to end."""
    here = Path.cwd()
    left = lifetime.left_behind_in(here)
    psutil.wait_procs(left, timeout=lifetime.PATIENCE)
    busy = [process for process in lifetime.dvc_in(here) if "repro" in lifetime.command_line(process)]
    busy += lifetime.left_behind_in(here) if left else []
    if busy:
        raise UserError(f"a build runs here already: {lifetime.describe(busy[0])}; wait for it, or end it")


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other builds out of this working tree while the block lasts: two that begin together find nobody.

    Raises:
        UserError: another one is in its block.
    """
    layout.BUILDS.mkdir(parents=True, exist_ok=True)
    with (layout.BUILDS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which ends with this process, however that ends
        except BlockingIOError as e:
            raise UserError("a build begins here already; wait for it, or end it") from e
        yield


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Turn a signal that ends this process into SystemExit, so that all that it started ends with it.

    One that is ignored stays so: `nohup` detaches a build like that.
    """

    def end(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_begun(start: float) -> bool:
    """Tell whether the stage `environment`, with which a build begins, ran since then: DVC may have been busy."""
    return layout.FAILURES.is_dir() and layout.FAILURES.stat().st_mtime >= start


def _conclude(build: Build) -> None:
    """Make the reports, the releases and the gate of what there is; DVC left them out, as they need all."""
    stages = [stage for stage in failures.index_graph() if failures.block(stage) in failures.AFTER]
    for target in plan.derive(params.load()).reports:
        (layout.REPORTS / "measurements" / target).mkdir(parents=True, exist_ok=True)
    ordered = sorted(stages, key=lambda stage: failures.AFTER.index(failures.block(stage)))
    _run(build, [*KEEP_GOING, "--single-item", *(stage.addressing for stage in ordered)])


def _run(build: Build, arguments: Sequence[str], *, forked: bool = False) -> int:
    """Run DVC and return its status; forked: as `Build.run` has it.

    Raises:
        SystemExit: it was interrupted or killed; what was built stays, and the next build goes on from there.
    """
    status = build.run(arguments, forked=forked)
    if status < 0:
        print(f"dvc was stopped by signal {-status}; run it again to go on", file=sys.stderr)
        sys.exit(128 - status)
    if status == INTERRUPTED:
        sys.exit(INTERRUPTED)
    return status
