"""Do two networks give the same numbers? Over lengths, silence and chunks with carried states."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.core.graphs import Axis, Feeds, Graph, GraphSet, Tensor, example_feeds

Network = Callable[[Feeds], Feeds]
"""Runs one graph: named inputs to named outputs, states among both."""
LoadedArtifact = tuple[GraphSet, dict[str, Network]]
"""An artifact, ready to run: its graph set, and what runs each graph, by the same names."""

BATCH = "batch"  # the name of the axis that several inputs of different lengths share
Length = Callable[[Axis], int]
LENGTHS: dict[str, Length] = {
    "shortest": lambda axis: axis.min,
    "shortest + 1": lambda axis: axis.min + 1,
    "usual": lambda axis: axis.opt,
    # Not over 200 frames: 220 M parameters take a second for them.
    "long": lambda axis: max(2 * axis.opt - 3, min(5 * axis.opt - 3, 200)),
}
CHUNKS: tuple[Length, ...] = (
    LENGTHS["usual"],
    LENGTHS["usual"],
    LENGTHS["shortest"],
    lambda axis: 2 * axis.opt - 7,
    LENGTHS["usual"],
)


def largest_differences(graph: Graph, reference: Network, candidate: Network) -> dict[str, float]:
    """Find the largest difference over all outputs, relative to the output's scale, for each kind of input.

    Lengths from the shortest up, silence (zeros, and the strongly negative log energies that a digital
    zero gives), a padded batch where the graph has a `batch` axis, and, where it has states, a stream
    of unequal chunks in which each network is fed the states that it gave itself.
    """
    differences = {name: relative_difference(reference(feeds), candidate(feeds)) for name, feeds in _probes(graph)}
    if graph.states:
        differences["chunks"] = max(_streamed(graph, reference, candidate))
    return differences


def excess(differences: Mapping[str, float], tolerance: float) -> str | None:
    """Return in words the largest of `largest_differences`, or None where all are within the tolerance."""
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] <= tolerance:
        return None
    return f"differs by {differences[worst]:.3g} on {worst}, at most {tolerance:g} is allowed"


def remember(network: Network) -> Callable[[], Network]:
    """Remember what `network` gives, call by call, for every network that the result makes: parity asks repeatedly."""
    answers: list[Feeds] = []

    def again() -> Network:
        calls = itertools.count()

        def run(feeds: Feeds) -> Feeds:
            if (call := next(calls)) == len(answers):
                answers.append(network(feeds))
            return answers[call]

        return run

    return again


def _probes(graph: Graph) -> Iterator[tuple[str, Feeds]]:
    for number, (name, length) in enumerate(LENGTHS.items()):
        yield name, example_feeds(graph, _sizes(graph, length), seed=number)
    free = [name for name, t in graph.inputs.items() if name not in graph.states and _is_free(t)]
    for name, value in (("zeros", 0.0), ("silence", -8.0)) if free else ():
        feeds = example_feeds(graph, _sizes(graph, LENGTHS["usual"]), seed=0)
        yield name, feeds | {k: np.full_like(feeds[k], value) for k in free}
    if BATCH in graph.axes:
        yield "padded batch", example_feeds(graph, _sizes(graph, LENGTHS["usual"], batch=2), seed=1)


def long_feeds(graph: Graph) -> Feeds:
    """Draw inputs of a length that no window of the graph is likely to divide."""
    return example_feeds(graph, _sizes(graph, LENGTHS["long"]), seed=0)


def _is_free(tensor: Tensor) -> bool:
    return tensor.length_of is None and tensor.below is None and tensor.fill is None


def _sizes(graph: Graph, length: Length, batch: int = 1) -> dict[str, int]:
    sizes = {name: min(max(length(axis), axis.min), axis.max) for name, axis in graph.axes.items()}
    return sizes | ({BATCH: min(batch, graph.axes[BATCH].max)} if BATCH in graph.axes else {})


def _streamed(graph: Graph, reference: Network, candidate: Network) -> Iterator[float]:
    states: tuple[Feeds, Feeds] = ({}, {})
    for number, length in enumerate(CHUNKS):
        feeds = example_feeds(graph, _sizes(graph, length), seed=number)
        outputs = [network({**feeds, **state}) for network, state in zip((reference, candidate), states, strict=True)]
        for state, output in zip(states, outputs, strict=True):
            state.update({name: output[fed] for name, fed in graph.states.items()})
        yield relative_difference(*outputs)


def relative_difference(a: Feeds, b: Feeds, *, over: Callable[[NDArray[np.float64]], Any] = np.max) -> float:
    """Compute max |a - b| / max(1, max |a|); infinite when a shape differs or a value is not finite.

    over: what the differences of an output's values come down to, in the place of their maximum.
    """
    worst = 0.0
    for name, value in a.items():
        other = b[name]
        if value.shape != other.shape or not (np.isfinite(value).all() and np.isfinite(other).all()):
            return float("inf")
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        if value.size:
            worst = max(worst, float(over(np.abs(value.astype(np.float64) - other.astype(np.float64)))) / scale)
    return worst
