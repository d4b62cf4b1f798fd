"""A pipeline of made-up components: what each changes is found in the text; what is late is counted from the speech."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from stages.pipelines import transcription
from stages.pipelines.transcription import Floats, LoadedPipeline

MS = transcription.SAMPLES_PER_MS
VAD_MS, PIECE_MS, SILENCE_MS = 200, 600, 800


def audio(*stretches: tuple[int, int]) -> Floats:
    """Stretches of (milliseconds, what is said: a digit, 0 for silence), one after another."""
    return np.concatenate([np.full(ms * MS, value, np.float32) for ms, value in stretches])


def detect(samples: Floats) -> list[list[int]]:
    """Where something is said."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], samples > 0, [0]]).astype(int)))
    return [[int(start) // MS, int(end) // MS] for start, end in edges.reshape(-1, 2)]


def listen(samples: Floats) -> Iterator[tuple[int, list[list[int]]]]:
    """Notices a start with the piece that has it and an end after the silence; the last one with the last piece."""
    total = len(samples) // MS
    for heard in range(VAD_MS, total + VAD_MS, VAD_MS):
        now = []
        for start, end in detect(samples):
            if heard - VAD_MS <= start < heard:
                now.append([start, -1])
            if heard - VAD_MS < end + SILENCE_MS <= heard or (heard >= total and end + SILENCE_MS > heard):
                now.append([-1, end])
        yield min(heard, total), now


def said(samples: Floats) -> str:
    return "".join(str(int(value)) for value in dict.fromkeys(samples[samples > 0].tolist()))


def stream(samples: Floats) -> Iterator[str]:
    """Says a piece late: nothing of the first."""
    pieces = [samples[start : start + PIECE_MS * MS] for start in range(0, len(samples) + 1, PIECE_MS * MS)]
    yield ""
    yield from (said(piece) for piece in pieces[:-1])


PIPELINE = LoadedPipeline(
    detect=detect,
    recognize=said,
    punctuate=lambda text: ",".join(text.split()) + ".",
    normalize=lambda text: text.replace("1", "one"),
    listen=listen,
    stream=stream,
    piece_ms=PIECE_MS,
    take_finite=lambda: True,
)
SAMPLES = audio((400, 0), (1500, 1), (1000, 0), (700, 2), (1000, 0), (900, 3), (1100, 0))


def test_every_step_follows_the_one_before():
    found = transcription.transcribe(PIPELINE, SAMPLES)
    assert found.spoken == {(400, 1900): "1", (2900, 3600): "2", (4600, 5500): "3"}
    assert found.text == "one,2,3."
    assert set(found.seconds) == {"vad", "asr", "punctuation", "itn"}


def test_a_recording_without_speech_has_no_segments():
    assert transcription.transcribe(PIPELINE, audio((1000, 0))).spoken == {}
    assert transcription.two_passes(PIPELINE, audio((1000, 0)), []) == []


@pytest.mark.parametrize(
    ("component", "change", "text"),
    [
        pytest.param("vad", {"detect": lambda samples: detect(samples)[1:]}, "2,3.", id="vad"),
        pytest.param("asr", {"recognize": lambda s: said(s).replace("2", "7")}, "one,7,3.", id="asr"),
        pytest.param("punctuation", {"punctuate": lambda text: text}, "one 2 3", id="punctuation"),
    ],
)
def test_a_change_is_found_in_the_component_that_has_it_and_in_no_other(component, change, text):
    target = replace(PIPELINE, **change)
    transcripts = [transcription.transcribe(one, SAMPLES) for one in (PIPELINE, target)]
    swapped = transcription.swap_each(SAMPLES, PIPELINE, target, *transcripts)
    assert swapped.pop(component) == transcripts[1].text == text
    assert set(swapped.values()) == {"one,2,3."}


def test_what_was_recognized_already_is_not_recognized_again():
    def never(_: Floats) -> str:
        raise AssertionError

    transcripts = [transcription.transcribe(PIPELINE, SAMPLES)] * 2
    deaf = replace(PIPELINE, recognize=never)
    assert set(transcription.swap_each(SAMPLES, deaf, deaf, *transcripts).values()) == {"one,2,3."}


def test_latencies_are_counted_from_the_speech_and_not_from_the_segment():
    first, second, third = transcription.two_passes(PIPELINE, SAMPLES, [(450, 1800), (2900, 3600), (4600, 5500)])
    # Two pieces of 600 ms from 400 on are there at 1600, a piece of 200 ms; speech began at 450.
    assert first.first_partial is not None
    assert first.first_partial[0] == 1600 - 450
    # The end at 1900 is noticed after 800 ms of silence, with the piece up to 2800; speech ended at 1800.
    assert first.final is not None
    assert first.final[0] == 2800 - 1800
    assert first.partials == "11"
    assert second.first_partial is not None
    assert second.first_partial[0] == 4200 - 2900  # 2900 + 1200 = 4100 is within a piece
    assert third.final is not None
    assert third.final[0] == 6400 - 5500
    assert all(one.final is not None and one.final[1] > 0 for one in (first, second, third))


def test_a_false_alarm_has_no_latency_and_silence_no_first_partial():
    first, second, _ = transcription.two_passes(
        replace(PIPELINE, stream=lambda _: iter(["", ""])), SAMPLES, [(400, 1900)]
    )
    assert (first.first_partial, second.final) == (None, None)
    assert first.final is not None


def test_a_wait_while_the_clock_is_read_is_not_taken_off(monkeypatch: pytest.MonkeyPatch):
    """Each look at the wait finds a second more: on a busy machine the thread may lose its core there too."""
    clock = [0.0]

    def look() -> int:
        clock[0] += 1
        return round(clock[0] * 1e9)

    @contextmanager
    def own_wait() -> Iterator[Callable[[], int]]:
        yield look

    monkeypatch.setattr(transcription, "own_wait", own_wait)
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    seconds: dict[str, float] = {}
    with transcription._timing(seconds, "step"):
        pass
    assert seconds["step"] >= 0
