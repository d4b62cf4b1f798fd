"""Mixtures have speech exactly where their labels say, of voices that no other split has, and the same bytes again."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from stages.core import params, statistics
from stages.core.errors import UserError
from stages.core.params.origins import MixturesDataset
from stages.core.params.section import Split
from stages.corpora import manifest, noises, recorded_speech, sentences, vad_mixtures, vad_voices
from stages.corpora.espeak import speak, variants
from stages.corpora.vad_mixtures import Condition, Take

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
    members = [(speaker.archive, member) for speaker in recorded_speech.SPEAKERS for member in speaker.members]
    with zipfile.ZipFile(wheel, "w") as z, tarfile.open(sdist, "w:gz") as t:
        for seed, (archive, member) in enumerate(members):
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
    """A few mixtures of each split, of real and synthetic voices."""
    mixtures = {"calibration": 4, "tuning": 2, "evaluation": 4}
    return MixturesDataset(kind="vad_mixtures", path="x", seed=seed, archives={}, mixtures=mixtures)


@pytest.fixture(scope="module")
def made(archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    vad_mixtures.make(dataset(), archives, folder)
    return folder


def take(noise: str, snr_db: float, utterances: int = 3) -> Take:
    """Half-second bursts of one voice, under one noise."""
    rng = np.random.default_rng(1)
    condition = Condition("x", noise, (snr_db, snr_db))
    return Take("someone", condition, [rng.standard_normal(RATE // 2) for _ in range(utterances)], rng)


def loudness(samples: np.ndarray, segments: list[tuple[int, int]]) -> tuple[float, float]:
    """Mean square inside the segments and outside."""
    inside = np.zeros(len(samples), bool)
    for start, end in segments:
        inside[start:end] = True
    return float(np.mean(samples[inside] ** 2)), float(np.mean(samples[~inside] ** 2))


@pytest.mark.parametrize("noise", [*noises.NOISES])
@pytest.mark.parametrize("snr_db", [10, 30])
def test_speech_is_where_the_labels_say_and_noise_as_loud_as_the_condition_says(noise: str, snr_db: float):
    inside, outside = loudness(*vad_mixtures.mix(take(noise, snr_db, 12), []))
    assert 10 * np.log10(inside / outside - 1) == pytest.approx(snr_db, abs=2)


def test_babble_is_heard_where_the_voice_speaks_and_never_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vad_mixtures, "GAIN_DB", (0, 0))
    others = [take("white", 0) for _ in range(3)]
    inside, outside = (10 * np.log10(x) for x in loudness(*vad_mixtures.mix(take("babble", 0), others)))
    assert inside == pytest.approx(vad_mixtures.LEVEL_DBFS + 3, abs=0.5)  # twice the voice's power
    assert outside == pytest.approx(vad_mixtures.LEVEL_DBFS - vad_mixtures.FLOOR_DB, abs=0.5)  # the room alone


def test_gaps_are_from_100_ms_up():
    _, segments = vad_mixtures.mix(take("white", 0, 60), [])
    gaps = [(start - end) / RATE for (_, end), (start, _) in pairwise(segments)]
    assert 0.1 <= min(gaps) < 0.2
    assert 1.5 < max(gaps) <= 3


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(made: Path, archives: dict[str, Path], tmp_path: Path):
    digests = [[r.sha256 for r in manifest.read(made, "evaluation")]]
    for name, seed in (("again", 1), ("other", 2)):
        vad_mixtures.make(dataset(seed), archives, tmp_path / name)
        digests.append([r.sha256 for r in manifest.read(tmp_path / name, "evaluation")])
    assert digests[0] == digests[1]
    assert not set(digests[0][:4]) & set(digests[2][:4])


def test_each_recording_is_of_one_voice_under_one_condition(made: Path):
    manifest.check(made)
    speakers = {}
    for split in manifest.SPLITS:
        recordings = manifest.read(made, split)
        assert all(r.speaker and r.condition and r.segments for r in recordings)
        speakers[split] = {r.speaker for r in recordings}
    assert any(name.startswith("espeak") for name in speakers["calibration"])
    assert not any(a & b for a, b in combinations(speakers.values(), 2))


def test_a_part_that_is_sealed_has_voices_and_conditions_of_its_own(archives: dict[str, Path]):
    recordings = recorded_speech.read(archives)
    cast = vad_voices.voices("final", recordings, seed=1)
    takes = vad_mixtures.spoken("final", cast, 3, seed=1)
    samples, segments = vad_mixtures.mix(takes[1], [takes[0], takes[2]])
    assert takes[1].condition == Condition("babble 0 dB", "babble", (0, 0))
    assert segments[-1][1] < len(samples)
    assert not {c.noise for c in vad_mixtures.FINAL_CONDITIONS} & {c.noise for c in vad_mixtures.CONDITIONS} - {
        "babble"
    }


@pytest.mark.parametrize(("part", "voices"), [("evaluation", 300), ("calibration", 100), ("tuning", 60), ("final", 30)])
def test_there_are_enough_voices_in_enough_languages(archives: dict[str, Path], part: Split, voices: int):
    cast = vad_voices.voices(part, recorded_speech.read(archives), seed=1)
    assert len({voice.name for voice in cast}) == len(cast) >= voices
    assert len({v.language for v in cast if isinstance(v, vad_voices.Synthetic)}) >= 6
    assert isinstance(cast[0], vad_voices.Recorded)


def test_each_condition_of_the_evaluation_is_heard_often_enough_to_be_judged():
    made = params.load().datasets["vad_mixtures"]
    assert isinstance(made, MixturesDataset)
    count = made.mixtures["evaluation"]
    heard = Counter(vad_mixtures._condition("evaluation", number, count).name for number in range(count))
    assert set(heard) == {condition.name for condition in vad_mixtures.CONDITIONS}
    assert min(heard.values()) >= statistics.LEAST


def test_no_voice_recording_or_language_of_the_sealed_part_is_in_two_parts():
    of_parts = [set(names) for names in vad_voices.VARIANTS.values()]
    assert not any(a & b for a, b in combinations(of_parts, 2))
    assert set().union(*of_parts) <= set(variants())
    members = [member for speaker in recorded_speech.SPEAKERS for member in speaker.members]
    assert len(members) == len(set(members))
    final = set(vad_voices.LANGUAGES["final"])
    assert not final & {name for part, names in vad_voices.LANGUAGES.items() if part != "final" for name in names}


def test_no_sentence_is_in_two_parts():
    drawn = []
    for part in sentences.PARTS:
        rng = np.random.default_rng(0)
        drawn.append({sentences.sentence("cmn", part, rng) for _ in range(1000)})
    assert all(len(texts) > 500 for texts in drawn)
    assert not any(a & b for a, b in combinations(drawn, 2))


@pytest.mark.parametrize("language", sorted({name for names in vad_voices.LANGUAGES.values() for name in names}))
def test_a_sentence_is_spoken_without_a_pause(language: str):
    samples = speak(sentences.TEMPLATES[language][0].format(725), language)
    assert 1 < len(samples) / RATE < 6
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    assert np.diff(loud).max() < 0.15 * RATE


def test_an_archive_without_a_recording_is_named(archives: dict[str, Path]):
    with pytest.raises(UserError, match=r"a\.whl: no recording .*goforward\.raw"):
        recorded_speech.read({**archives, "english": archives["mandarin"]})


def test_utterances_are_found_between_pauses():
    found = recorded_speech.find_utterances(speechlike(4.5, 0))
    assert len(found) == 3
    for (start, end), expected in zip(found, (0.7, 2.2, 3.7), strict=True):
        assert start / RATE == pytest.approx(expected, abs=0.02)
        assert end / RATE == pytest.approx(expected + 0.8, abs=0.02)


def test_a_call_at_8_khz_is_read_at_16_khz():
    data = io.BytesIO()
    tone = np.sin(2 * np.pi * 500 * np.arange(8000) / 8000) / 2
    soundfile.write(data, tone, 8000, format="WAV")
    samples = recorded_speech._decode("call.wav", data.getvalue())
    assert len(samples) == RATE
    assert np.abs(np.fft.rfft(samples)).argmax() == 500
