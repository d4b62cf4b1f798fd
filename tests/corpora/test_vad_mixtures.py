"""Mixtures have speech exactly where their labels say, and the same seed gives the same bytes."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stages.core.errors import UserError
from stages.core.params.origins import MixturesDataset
from stages.corpora import manifest, vad_mixtures

RATE = manifest.SAMPLE_RATE


def speechlike(seconds: float, seed: int) -> np.ndarray:
    """Noise bursts of 0.8 s with 0.7 s of near silence around each."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    return np.where((t % 1.5) > 0.7, 0.1, 0.0005) * rng.standard_normal(len(t))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The archives that the recipe reads, with made recordings under the real names."""
    folder = tmp_path_factory.mktemp("archives")
    wheel, sdist = folder / "a.whl", folder / "b.tar.gz"
    with zipfile.ZipFile(wheel, "w") as z, tarfile.open(sdist, "w:gz") as t:
        for seed, (archive, member, _) in enumerate(vad_mixtures.RECORDINGS):
            data = io.BytesIO()
            samples = (speechlike(4, seed) * 32767).astype("<i2")
            if member.endswith(".raw"):
                data.write(samples.tobytes())
            else:
                soundfile.write(data, samples, RATE, format="WAV")
            if archive == "mandarin":
                z.writestr(member, data.getvalue())
            else:
                info = tarfile.TarInfo(member)
                info.size = len(data.getvalue())
                t.addfile(info, io.BytesIO(data.getvalue()))
    return {"mandarin": wheel, "english": sdist}


def dataset(seed: int = 1) -> MixturesDataset:
    return MixturesDataset(
        kind="vad_mixtures",
        path="x",
        seed=seed,
        archives={},
        mixtures={"calibration": 2, "tuning": 1, "evaluation": 2},
        snr_db=[40],
    )


def test_speech_is_where_the_labels_say(archives: dict[str, Path], tmp_path: Path):
    vad_mixtures.make(dataset(), archives, tmp_path)
    manifest.check(tmp_path)
    for recording in manifest.read(tmp_path, "calibration"):
        samples = recording.samples()
        inside = np.zeros(len(samples), bool)
        for start, end in recording.segments:
            inside[round(start * RATE) : round(end * RATE)] = True
        assert recording.segments
        assert np.mean(samples[inside] ** 2) > 100 * np.mean(samples[~inside] ** 2)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(archives: dict[str, Path], tmp_path: Path):
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        vad_mixtures.make(dataset(seed), archives, tmp_path / name)
        digests.append([r.sha256 for r in manifest.read(tmp_path / name, "evaluation")[:2]])
    assert digests[0] == digests[1] != digests[2]


def test_no_recording_is_in_two_splits():
    members = [member for _, member, _ in vad_mixtures.RECORDINGS]
    assert len(members) == len(set(members))
    librivox = {split for _, member, split in vad_mixtures.RECORDINGS if "librivox" in member}
    assert librivox == {"evaluation"}  # one reader, one session


def test_an_archive_without_a_recording_is_named(archives: dict[str, Path], tmp_path: Path):
    with pytest.raises(UserError, match=r"a\.whl: no recording .*goforward\.raw"):
        vad_mixtures.make(dataset(), {**archives, "english": archives["mandarin"]}, tmp_path)


def test_utterances_are_found_between_pauses():
    found = vad_mixtures.find_utterances(speechlike(4.5, 0))
    assert len(found) == 3
    for (start, end), expected in zip(found, (0.7, 2.2, 3.7), strict=True):
        assert start / RATE == pytest.approx(expected, abs=0.02)
        assert end / RATE == pytest.approx(expected + 0.8, abs=0.02)
