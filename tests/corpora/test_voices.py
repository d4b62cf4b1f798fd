"""What judges a model: a voice of its own for each recording, every condition, nothing shared between splits."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stages.core import params
from stages.core.params.origins import SyntheticDataset
from stages.core.params.section import Split
from stages.core.statistics import Groups, Metric, drift
from stages.corpora import emotional_prosody, hotword_commands, manifest, spoken_commands, tagged_commands, voices
from stages.evaluate import LOOKS
from tests.workspace import ROOT

ITEMS: dict[Split, int] = {"evaluation": 8, "final": 8}


@pytest.fixture(scope="module", params=[spoken_commands, hotword_commands, tagged_commands, emotional_prosody])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, Path]:
    folder = tmp_path_factory.mktemp("made")
    request.param.make(5, ITEMS, folder)
    return request.param, folder


def test_each_recording_has_a_voice_of_its_own_and_no_split_shares_one(made):
    _, folder = made
    recordings = [r for split in ITEMS for r in manifest.read(folder, split)]
    assert len({r.speaker for r in recordings}) == len(recordings)
    variants = [{r.speaker.split()[1] for r in manifest.read(folder, split)} for split in ITEMS]
    assert not variants[0] & variants[1]


def test_every_condition_of_a_split_is_in_it(made):
    module, folder = made
    conditions = getattr(module, "CONDITIONS", spoken_commands.CONDITIONS)
    for split in ITEMS:
        named = {condition.name for condition in conditions[split]}
        assert {r.condition for r in manifest.read(folder, split)} == named
    assert conditions["final"] == conditions["evaluation"]


def test_more_recordings_leave_the_first_ones_as_they_are(made, tmp_path):
    module, folder = made
    module.make(5, {"evaluation": 3}, tmp_path)
    fewer = manifest.read(tmp_path, "evaluation")
    assert [r.sha256 for r in fewer] == [r.sha256 for r in manifest.read(folder, "evaluation")[:3]]


def test_texts_of_a_split_are_in_no_other(made):
    _, folder = made
    one, other = ({r.text for r in manifest.read(folder, split)} for split in ITEMS)
    assert not one & other


@pytest.mark.parametrize("module", [spoken_commands, emotional_prosody])
def test_no_variant_speaks_in_two_splits(module):
    for one, other in combinations(module.SPEAKERS.values(), 2):
        assert not set(one) & set(other)


def test_a_shorter_vocal_tract_moves_the_spectrum_up():
    prosody = {"rate": 175, "pitch": 50, "pitch_range": 50}

    def centre(tract_percent: int) -> float:
        power = np.abs(np.fft.rfft(voices.Voice("m3", tract_percent, prosody).speak("今天下雨", "cmn"))) ** 2
        return float(np.sum(np.linspace(0, 1, len(power)) * power) / power.sum())

    assert centre(115) > 1.1 * centre(90)


def test_noise_is_as_far_below_the_speech_as_its_condition_says():
    condition = voices.Condition("hum", "hum", (10, 10))
    noise = voices.noise(condition, 16000, {}, np.random.default_rng(0))
    assert 10 * np.log10(np.mean(noise**2)) == pytest.approx(-10, abs=0.1)


def _resolves(count: int, baseline: float, *, higher_is_better: bool) -> float:
    """Return the smallest limit that an unchanged build of `count` recordings keeps, at the last look's confidence."""
    counts = [{"metric": (baseline, 1.0)}] * count
    groups = Groups([str(n) for n in range(count)], [""] * count, [""] * count)
    settings = {"resamples": 100, "confidence": 1 - LOOKS[-1][1] * 0.05, "seed": 0}
    return float(drift(Metric(higher_is_better), "metric", counts, counts, groups, **settings)["resolves"])


@pytest.mark.parametrize(
    ("dataset", "family", "metric", "baseline"),  # baseline: measured on the shipped data, benchmarks/NOTES.md
    [
        ("spoken_commands", "paraformer", "offline_cer", 0.116),
        ("spoken_commands", "paraformer_streaming", "streaming_cer", 0.153),
        ("hotword_commands", "seaco_paraformer", "list50_cer", 0.294),
        ("hotword_commands", "seaco_paraformer", "list50_hotword_recall", 0.133),
        ("punctuated_text", "ct_transformer", "text_f1", 0.948),
        ("emotional_prosody", "emotion2vec", "utterance_weighted_accuracy", 0.794),
    ],
)
def test_the_shipped_data_can_tell_an_unchanged_build_from_one_at_the_limit(dataset, family, metric, baseline):
    p = params.load(ROOT / "params.yaml")
    limit = p.gates["quantized"].accuracy[family][metric]
    most = limit if isinstance(limit, float) else max(limit.least, limit.relative * baseline)
    is_score = not metric.endswith("_cer")
    shipped = p.datasets[dataset]
    assert isinstance(shipped, SyntheticDataset)
    assert _resolves(shipped.items["evaluation"], baseline, higher_is_better=is_score) < most
