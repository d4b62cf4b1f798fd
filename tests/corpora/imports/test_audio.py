"""Audio as users have it becomes what manifests want: 16 kHz, mono, and the same sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from stages.core.files import sha256
from stages.corpora.imports import audio
from stages.corpora.imports.utterances import Utterance
from stages.corpora.manifest import read_wav
from tests.corpora.imports import speech


def write(path: Path, start: float = 0, end: float | None = None):
    return audio.write(Utterance("a", "s", "text", path, start, end), path.parent, "out.wav")


def tone(path: Path, rate: int, channels: int = 1) -> Path:
    """Two seconds of 440 Hz, in the first channel only."""
    samples = np.zeros((2 * rate, channels))
    samples[:, 0] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    soundfile.write(path, samples, rate)
    return path


def test_a_format_without_a_header_cannot_be_read(tmp_path: Path):
    (tmp_path / "a.raw").write_bytes(bytes(32_000))
    with pytest.raises(audio.UnusableError, match="its audio cannot be read"):
        write(tmp_path / "a.raw")


def test_a_file_that_fits_is_copied(tmp_path: Path):
    path = speech.put(tmp_path / "a.wav")
    line, was = write(path)
    assert (line.seconds, line.sha256, was) == (0.5, sha256(path), "")
    assert sha256(tmp_path / "out.wav") == sha256(path)


def test_flac_keeps_its_samples(tmp_path: Path):
    path = speech.put(tmp_path / "a.flac")
    write(path)
    assert np.array_equal(read_wav(tmp_path / "out.wav"), soundfile.read(path, dtype="float32")[0])


def test_a_segment_is_its_part_of_the_recording(tmp_path: Path):
    path = speech.put(tmp_path / "a.wav", seconds=2)
    line, _ = write(path, 0.5, 1.25)
    assert line.seconds == 0.75
    assert np.array_equal(read_wav(tmp_path / "out.wav"), soundfile.read(path, dtype="float32")[0][8000:20000])


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44_100, 2), (48_000, 1), (22_050, 3), (16_000, 2)])
@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
def test_other_rates_and_channels_keep_the_tone_and_the_length(tmp_path: Path, rate: int, channels: int, kind: str):
    if kind == "mp3" and channels > 2:
        channels = 2
    line, was = write(tone(tmp_path / f"a.{kind}", rate, channels))
    assert was == f"{rate} Hz with {channels} channel{'s' if channels > 1 else ''}"
    samples = read_wav(tmp_path / "out.wav")
    assert abs(line.seconds - 2) < 0.06
    spectrum = np.abs(np.fft.rfft(samples[:16_000] * np.hanning(16_000)))
    assert spectrum.argmax() == 440
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.5 / channels, rel=0.1)


@pytest.mark.parametrize(
    ("make", "start", "end", "why"),
    [
        pytest.param(lambda p: speech.put(p, seconds=0.2), 0, None, "shorter than 0.3 s", id="short"),
        pytest.param(lambda p: speech.put(p, seconds=0), 0, None, "shorter than 0.3 s", id="empty"),
        pytest.param(lambda p: speech.put(p, seconds=61), 0, None, "longer than 60 s", id="long"),
        pytest.param(speech.put, 0.1, 0.2, "shorter than 0.3 s", id="a-short-segment"),
        pytest.param(speech.put, 0, 0.9, "it ends after its recording", id="past-the-end"),
        pytest.param(lambda p: p.write_bytes(b"not audio"), 0, None, r"its audio cannot be read \(.*\)", id="no-audio"),
        pytest.param(lambda p: p.write_bytes(b""), 0, None, r"its audio cannot be read", id="no-bytes"),
        pytest.param(
            lambda p: soundfile.write(p, np.full(16_000, np.nan), 16_000, subtype="FLOAT"),
            0,
            None,
            "its samples are not all numbers from -1 to 1$",
            id="nan",
        ),
        pytest.param(
            lambda p: soundfile.write(p, np.linspace(0, 9_000, 16_000), 16_000, subtype="FLOAT"),
            0,
            None,
            r"^its samples are not all numbers from -1 to 1; are they at the scale of 16-bit numbers\?$",
            id="another-scale",  # whatever the samples: of ten thousand files one line is printed, with their count
        ),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, make, start: float, end: float | None, why: str):
    make(tmp_path / "a.wav")
    with pytest.raises(audio.UnusableError, match=why):
        write(tmp_path / "a.wav", start, end)
