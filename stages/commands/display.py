"""What a person sees of a build: one live display on a terminal, elsewhere a line for each stage that ran."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stages.commands.tally import Running, Tally


class Display(Protocol):
    """How a build is shown."""

    def shown(self, tally: Tally) -> AbstractContextManager[object]:
        """Show the build while the block lasts."""

    def finished(self, tally: Tally, running: Running, how: str) -> None:
        """Report how a stage ended, where that is worth a line."""

    def print_line(self, line: str) -> None:
        """Show a line about the build."""


class Silent:
    """For a build that another one reports."""

    def shown(self, _tally: Tally) -> AbstractContextManager[object]:
        """Show nothing while the block lasts."""
        return nullcontext()

    def finished(self, _tally: Tally, _running: Running, _how: str) -> None:
        """Report nothing."""

    def print_line(self, _line: str) -> None:
        """Show nothing."""


class Lines:
    """For a file or a pipe, such as a log of CI."""

    def shown(self, _tally: Tally) -> AbstractContextManager[object]:
        """Show nothing while the block lasts."""
        return nullcontext()

    def finished(self, tally: Tally, running: Running, how: str) -> None:
        """Print a line for each stage, `environment` only where it failed: it always runs."""
        if running.stage != "environment" or how:
            print(f"[{tally.position}] {running.stage}: {how}{running.seconds:.1f} s", flush=True)

    def print_line(self, line: str) -> None:
        """Print the line."""
        print(line, flush=True)


class Terminal:
    """For a person who waits."""

    def __init__(self, console: Console) -> None:
        """Show the build on that console."""
        self.console = console

    @contextmanager
    def shown(self, tally: Tally) -> Iterator[None]:
        """Show what runs, in lines that go away at the end."""
        with Live(get_renderable=lambda: panel(tally), console=self.console, refresh_per_second=4, transient=True):
            yield

    def finished(self, _tally: Tally, running: Running, how: str) -> None:
        """Print a line for what failed alone."""
        if how:
            self.console.print(f"{running.stage}: {how}{running.seconds:.1f} s", style="red", markup=False)

    def print_line(self, line: str) -> None:
        """Print the line above what goes away."""
        self.console.print(line, markup=False)


def panel(tally: Tally) -> Table:
    """Return the head of the display, and a line for each stage that runs."""
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    with tally.lock:
        head = f"stage {tally.position}" if tally.seen else "looking for what changed"
        table.add_row(Text(head, style="bold"), clock(tally.elapsed), forecast(tally))
        for running in tally.running:
            table.add_row(f"  {running.stage}", clock(running.seconds), Text(running.doing, style="dim"))
    return table


def forecast(tally: Tally) -> str:
    """Estimate how long the rest may take, from the last build."""
    seconds, unknown = tally.rest()
    without = f"without {unknown} stages that never ran" if unknown else ""
    about = f"about {clock(seconds)} left" if seconds else ""
    return ", ".join(filter(None, [about, without])) if about else ""


def clock(seconds: float) -> str:
    """Format a time as minutes and seconds, or hours before them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
