"""How often the intervals of `stages.core.statistics` miss the truth, and how often the gate is right: simulated.

    python -m benchmarks.intervals

Each row is a kind of data at a number of clusters: of so many simulated evaluations, how often the true loss lies
above the interval (the gate would pass what it should not) and below it, at a nominal 2.5 % each, and how far above the
drift the interval ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from stages.core.statistics import Groups, Metric, drift

Losses = Callable[[np.random.Generator, int], tuple[NDArray[np.int64], NDArray[np.int64]]]
CHARACTERS = 12  # of a recording, about what the spoken commands have
ERRORS = Metric(higher_is_better=False)
SETTINGS = {"resamples": 1000, "confidence": 0.95, "seed": 11}
SIZES = (10, 20, 100, 1000)
RUNS = 1000


def binomial(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a new error for 0.5 % of all characters and a mended one for 0.3 %: a true drift of 0.002."""
    return rng.binomial(CHARACTERS, 0.005, count), rng.binomial(CHARACTERS, 0.003, count)


def clustered(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw new errors at a rate that differs from cluster to cluster (Beta, mean 2 %): a true drift of 0.02."""
    return rng.binomial(CHARACTERS, rng.beta(0.5, 24.5, count)), np.zeros(count, np.int64)


def zero_inflated(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw one recording in twenty that loses half of its characters: a true drift of 0.025."""
    hit = rng.random(count) < 0.05
    return np.where(hit, rng.binomial(CHARACTERS, 0.5, count), 0), np.zeros(count, np.int64)


def rare(rng: np.random.Generator, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw one recording in a hundred that loses all of its characters: a true drift of 0.01."""
    return np.where(rng.random(count) < 0.01, CHARACTERS, 0), np.zeros(count, np.int64)


KINDS: dict[str, tuple[Losses, float]] = {
    "binomial": (binomial, 0.002),
    "clustered": (clustered, 0.02),
    "zero-inflated": (zero_inflated, 0.025),
    "rare, whole recordings": (rare, 0.01),
}


def missed(losses: Losses, truth: float, count: int, runs: int = RUNS) -> tuple[float, float, float]:
    """Return how often the truth lies above and below the interval, and the interval's mean width above the drift."""
    rng, above, below, widths = np.random.default_rng(count), 0, 0, []
    for _ in range(runs):
        lost, gained = losses(rng, count)
        before = [{"cer": (float(g), float(CHARACTERS))} for g in gained]
        after = [{"cer": (float(x), float(CHARACTERS))} for x in lost]
        groups = Groups([str(i) for i in range(count)], [""] * count, [""] * count)
        found = drift(ERRORS, "cer", before, after, groups, **SETTINGS)
        low, high = found["ci"]
        above, below = above + (truth > high), below + (truth < low)
        widths.append(found["resolves"])
    return above / runs, below / runs, float(np.mean(widths))


def main() -> None:
    """Print the table."""
    table = Table(title=f"{RUNS} simulated evaluations each; nominal 0.025 on either side")
    for heading in ("data", "clusters", "true drift", "truth above", "truth below", "resolves"):
        table.add_column(heading)
    for name, (losses, truth) in KINDS.items():
        for count in SIZES:
            above, below, width = missed(losses, truth, count)
            table.add_row(name, str(count), f"{truth:g}", f"{above:.3f}", f"{below:.3f}", f"{width:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
