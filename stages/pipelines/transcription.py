"""A pipeline, one component after another: speech to segments, text, punctuated text and final text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.core.contention import own_wait

SAMPLES_PER_MS = 16
COMPONENTS = ("vad", "asr", "punctuation")  # those with a network; the rules of text normalisation are everyone's

Floats = NDArray[np.float32]
Segment = tuple[int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class LoadedPipeline:
    """Every component, ready to run. Audio is float32 (samples,) at 16 kHz, times are milliseconds.

    detect: the segments of a whole recording. recognize: the text of a segment. punctuate: a text with marks.
    normalize: inverse text normalisation of that. listen: the detector on audio as it arrives, at each piece the
    milliseconds so far and its events ([start, end], [start, -1] or [-1, end]). stream: the recognizer on a segment as
    it arrives, the text of each piece of `piece_ms`. take_finite: whether all that its networks gave since the last
    call was finite.
    """

    detect: Callable[[Floats], Sequence[Sequence[int]]]
    recognize: Callable[[Floats], str]
    punctuate: Callable[[str], str]
    normalize: Callable[[str], str]
    listen: Callable[[Floats], Iterable[tuple[int, Sequence[Sequence[int]]]]]
    stream: Callable[[Floats], Iterable[str]]
    piece_ms: int
    take_finite: Callable[[], bool]

    def finish(self, spoken: Iterable[str]) -> str:
        """Return the final text of what was recognized in the segments."""
        return self.normalize(self.punctuate(" ".join(spoken)))


@dataclass(frozen=True)
class Transcript:
    """What a pipeline made of a recording: the text of each segment, the final text, seconds of work by step."""

    spoken: dict[Segment, str]
    text: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class TwoPass:
    """One segment of live audio: its partial texts, and how late the first of them and the final text came.

    A latency is (wait, compute) in milliseconds: audio that still had to arrive, and work after that. It is None
    where nothing was said in the segment, or no partial text came.
    """

    partials: str
    first_partial: tuple[float, float] | None
    final: tuple[float, float] | None


def transcribe(pipeline: LoadedPipeline, samples: Floats) -> Transcript:
    """Run all steps on a whole recording, as FunASR's AutoModel does with a detector and a punctuation model."""
    seconds: dict[str, float] = {}
    with _timing(seconds, "vad"):
        segments = [(start, end) for start, end in pipeline.detect(samples)]
    with _timing(seconds, "asr"):
        spoken = {segment: pipeline.recognize(_cut(samples, segment)) for segment in segments}
    with _timing(seconds, "punctuation"):
        marked = pipeline.punctuate(" ".join(spoken.values()))
    with _timing(seconds, "itn"):
        text = pipeline.normalize(marked)
    return Transcript(spoken, text, seconds)


def swap_each(
    samples: Floats, baseline: LoadedPipeline, target: LoadedPipeline, by_baseline: Transcript, by_target: Transcript
) -> dict[str, str]:
    """Transcribe a recording with one component of the target in the baseline, for each component: the final texts.

    Only what comes after the component is done again, and of that not what either transcript has already.
    """

    def recognize(pipeline: LoadedPipeline, known: Transcript, segments: Iterable[Segment]) -> list[str]:
        return [known.spoken[s] if s in known.spoken else pipeline.recognize(_cut(samples, s)) for s in segments]

    return {
        "vad": baseline.finish(recognize(baseline, by_baseline, by_target.spoken)),
        "asr": baseline.finish(recognize(target, by_target, by_baseline.spoken)),
        "punctuation": target.finish(by_baseline.spoken.values()),
    }


def two_passes(pipeline: LoadedPipeline, samples: Floats, speech: Sequence[tuple[float, float]]) -> list[TwoPass]:
    """Feed a recording as it arrives in real time: partial texts while a segment lasts, the final one at its end.

    As FunASR's runtime serves `2pass`: the detector gets every piece; from a segment's start on, the streaming
    recognizer gets it piece by piece, and when its end is noticed, the whole of it is recognized again, punctuated
    and normalized. The clock is the audio's; the work of each call is measured apart.

    speech: the true [start, end] of what is said, in milliseconds; latencies are counted from them.
    """
    found = []
    work: dict[int, float] = {}  # of the detector, by the milliseconds that arrived
    start = noticed = 0
    for compute, (arrived, events) in _time_each(pipeline.listen(samples)):
        work[arrived] = compute
        for began, ended in events:
            if began >= 0:
                start, noticed = began, arrived
            if ended >= 0:
                found.append(_recognize_twice(pipeline, samples, (start, ended), noticed, work, speech))
    return found


def _recognize_twice(
    pipeline: LoadedPipeline,
    samples: Floats,
    segment: Segment,
    noticed: int,
    work: dict[int, float],
    speech: Sequence[tuple[float, float]],
) -> TwoPass:
    """Recognize a segment twice, streamed and whole, once its end was noticed in the last piece of `work`."""
    audio, arrived = _cut(samples, segment), max(work)
    texts, first = [], None
    for number, (compute, text) in enumerate(_time_each(pipeline.stream(audio)), 1):
        texts.append(text)
        if text and first is None:
            complete = max(noticed, segment[0] + number * pipeline.piece_ms)
            at = min((piece for piece in work if piece >= complete), default=arrived)
            first = (at, work[at] + compute)
    began = time.perf_counter()
    pipeline.finish([pipeline.recognize(audio)])
    final = work[arrived] + 1000 * (time.perf_counter() - began)
    spoken = [s for s in speech if s[0] < segment[1] and s[1] > segment[0]]
    return TwoPass(
        "".join(texts),
        (first[0] - spoken[0][0], first[1]) if first and spoken else None,
        (arrived - spoken[-1][1], final) if spoken else None,
    )


def _cut(samples: Floats, segment: Segment) -> Floats:
    start, end = segment
    return samples[start * SAMPLES_PER_MS : end * SAMPLES_PER_MS]


@contextmanager
def _timing(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Time what is done meanwhile, less what the calling thread waited for a core."""
    with own_wait() as waited:
        # Looks at the wait lie within the looks at the clock: a wait between two looks would be taken off otherwise.
        began, before = time.perf_counter(), waited()
        yield
        after = waited()
        seconds[name] = time.perf_counter() - began - (after - before) / 1e9


def _time_each(items: Iterable[T]) -> Iterator[tuple[float, T]]:
    """Yield each item with the milliseconds that it took to come."""
    iterator = iter(items)
    while True:
        began = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        yield 1000 * (time.perf_counter() - began), item
