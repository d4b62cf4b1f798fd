"""espeak-ng says the same samples for the same text, whatever it said before."""

from __future__ import annotations

import numpy as np
import pytest

from stages.core.errors import UserError
from stages.corpora.espeak import speak, variants
from stages.corpora.manifest import SAMPLE_RATE


@pytest.mark.parametrize("variant", ["", "f2", "caleb", "klatt3"])
def test_same_samples_whatever_was_spoken_before(variant):
    first = speak("一二三", "cmn", variant, rate=200, pitch=40)
    speak("打开电视", "cmn", "whisper", rate=120, pitch=80, pitch_range=99)
    np.testing.assert_array_equal(speak("一二三", "cmn", variant, rate=200, pitch=40), first)


def test_audio_is_16_khz_and_unclipped():
    samples = speak("一二三四五", "cmn", "m3")
    assert samples.dtype == np.float64
    assert 1.0 < len(samples) / SAMPLE_RATE < 2.0  # a little under 250 ms a digit
    assert 0.1 < abs(samples).max() < 1


def fundamental(samples: np.ndarray) -> float:
    """Hz, from the strongest lag of the autocorrelation between 60 and 400 Hz."""
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 60)
    return SAMPLE_RATE / lags[np.argmax([samples[:-lag] @ samples[lag:] for lag in lags])]


def test_rate_pitch_and_volume_do_what_they_say():
    slow, fast = (speak("一二三四五", "cmn", rate=rate) for rate in (120, 240))
    assert len(slow) > 1.5 * len(fast)
    low, high = (speak("啊", "cmn", pitch=pitch, pitch_range=0) for pitch in (20, 80))
    assert fundamental(high) > 1.3 * fundamental(low)
    soft, loud = (np.std(speak("啊", "cmn", volume=volume)) for volume in (25, 50))
    assert loud == pytest.approx(2 * soft, rel=0.1)


def test_variants_are_speakers():
    assert {"f1", "m1"} <= set(variants())
    assert not np.array_equal(speak("一", "cmn", "f1")[:1000], speak("一", "cmn", "m1")[:1000])


@pytest.mark.parametrize(
    ("text", "voice", "variant", "message"),
    [
        pytest.param("一", "cmn", "nobody", "no voice variant 'nobody'; it has .*f1", id="variant"),
        pytest.param("一", "martian", "", "no voice 'martian'", id="voice"),
        pytest.param("", "cmn", "", "said nothing for ''", id="silence"),
    ],
)
def test_what_it_cannot_say_is_named(text, voice, variant, message):
    with pytest.raises(UserError, match=message):
        speak(text, voice, variant)
    assert len(speak("一", "cmn"))  # and it still speaks
