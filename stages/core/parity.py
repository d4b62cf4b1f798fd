"""Do two networks give the same numbers? Over lengths, silence and chunks with carried states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stages.core.graphs import Feeds, Graph, GraphSet, example_feeds

Network = Callable[[Feeds], Feeds]
"""Runs one graph: named inputs to named outputs, states among both."""
Artifact = tuple[GraphSet, dict[str, Network]]
"""A model's graphs and the networks that run them, by the same names."""

LENGTHS = (1, 2, 20, 97, 1000)
CHUNKS = (20, 20, 1, 33, 20)


def largest_differences(graph: Graph, reference: Network, candidate: Network) -> dict[str, float]:
    """The largest difference over all outputs, relative to the output's scale, for each kind of input.

    Lengths from one frame up, silence (zeros, and the strongly negative log energies that a digital
    zero gives), and, where the graph has states, a stream of unequal chunks in which each network
    is fed the states that it gave itself.
    """
    differences = {name: _difference(reference(feeds), candidate(feeds)) for name, feeds in _probes(graph)}
    if graph.states:
        differences["chunks"] = max(_streamed(graph, reference, candidate))
    return differences


def _probes(graph: Graph) -> Iterator[tuple[str, Feeds]]:
    for length in LENGTHS:
        yield f"length {length}", example_feeds(graph, _sizes(graph, length), seed=length)
    for name, value in (("zeros", 0.0), ("silence", -8.0)):
        feeds = example_feeds(graph, _sizes(graph, 100), seed=0)
        yield name, {k: v if k in graph.states else np.full_like(v, value) for k, v in feeds.items()}


def _sizes(graph: Graph, length: int) -> dict[str, int]:
    return {name: min(max(length, axis.min), axis.max) for name, axis in graph.axes.items()}


def _streamed(graph: Graph, reference: Network, candidate: Network) -> Iterator[float]:
    states: tuple[Feeds, Feeds] = ({}, {})
    for number, length in enumerate(CHUNKS):
        feeds = example_feeds(graph, _sizes(graph, length), seed=number)
        outputs = [network({**feeds, **state}) for network, state in zip((reference, candidate), states, strict=True)]
        for state, output in zip(states, outputs, strict=True):
            state.update({name: output[fed] for name, fed in graph.states.items()})
        yield _difference(*outputs)


def _difference(a: Feeds, b: Feeds) -> float:
    """Max |a - b| / max(1, max |a|); infinite when a shape differs or a value is not finite."""
    worst = 0.0
    for name, value in a.items():
        other = b[name]
        if value.shape != other.shape or not (np.isfinite(value).all() and np.isfinite(other).all()):
            return float("inf")
        scale = max(1.0, float(np.abs(value).max(initial=0)))
        worst = max(worst, float(np.abs(value.astype(np.float64) - other.astype(np.float64)).max(initial=0)) / scale)
    return worst
