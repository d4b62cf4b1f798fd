"""The metrics that the Python backend adds to Triton's own, for each model, version and target.

Triton counts requests, failures, and the time in queues and in models itself (`nv_inference_*`), and gives all of them
at `/metrics`. These say what it cannot know: how much audio came, how fast that was, what was wrong with a request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REQUESTS, ERRORS = "kiln_requests_total", "kiln_errors_total"
RESULTS, EMPTY = "kiln_results_total", "kiln_empty_results_total"
AUDIO = "kiln_audio_seconds_total"
LATENCY, REAL_TIME_FACTOR = "kiln_latency_seconds", "kiln_real_time_factor"
INPUT, INTERNAL = "input", "internal"  # kinds of errors: the client's, and ours
COUNTERS = {
    REQUESTS: "Requests that the pipeline took, answered or not",
    AUDIO: "Seconds of audio in answered requests",
    RESULTS: "Results: an answer or, of a stream, all of them, counted with the last",
    EMPTY: "Results without text or segment",
}
HISTOGRAMS = {
    LATENCY: ("Seconds from the first step of the pipeline to its answer", (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)),
    REAL_TIME_FACTOR: (
        "Seconds of that for each second of audio",
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    ),
}
LARGER = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Metrics:
    """The metrics of one model. Instances that share the labels share the numbers.

    families: Triton removes a metric when the family that it was made of is gone.
    """

    families: Sequence[Any]
    counters: Mapping[str, Any]
    errors: Mapping[str, Any]
    histograms: Mapping[str, Any]

    def answered(self, latency: float, audio: float, *, empty: bool, is_last: bool = True) -> None:
        """Record an answer that took `latency` seconds.

        audio: its seconds, 0 for a text. is_last: no other belongs to the same result, which is then empty or not.
        """
        self.counters[REQUESTS].increment(1)
        self.counters[AUDIO].increment(audio)
        self.counters[RESULTS].increment(int(is_last))
        self.counters[EMPTY].increment(int(empty and is_last))
        self.histograms[LATENCY].observe(latency)
        if audio > 0:
            self.histograms[REAL_TIME_FACTOR].observe(latency / audio)

    def failed(self, kind: str) -> None:
        """Record a request that has no answer; kind: `INPUT` or `INTERNAL`."""
        self.counters[REQUESTS].increment(1)
        self.errors[kind].increment(1)


def register(labels: Mapping[str, str]) -> Metrics:
    """Register the metrics with Triton, from within its Python backend."""
    import triton_python_backend_utils as pb

    counters = {name: _family(pb, name, text, "COUNTER") for name, text in COUNTERS.items()}
    histograms = {name: _family(pb, name, text, "HISTOGRAM") for name, (text, _) in HISTOGRAMS.items()}
    errors = _family(pb, ERRORS, "Requests without an answer, by whose mistake", "COUNTER")
    return Metrics(
        [errors, *counters.values(), *histograms.values()],
        {name: family.Metric(labels=labels) for name, family in counters.items()},
        {kind: errors.Metric(labels={**labels, "kind": kind}) for kind in (INPUT, INTERNAL)},
        {
            name: family.Metric(labels=labels, buckets=[*HISTOGRAMS[name][1], *LARGER])
            for name, family in histograms.items()
        },
    )


def _family(pb: Any, name: str, description: str, kind: str) -> Any:
    return pb.MetricFamily(name=name, description=description, kind=getattr(pb.MetricFamily, kind))
