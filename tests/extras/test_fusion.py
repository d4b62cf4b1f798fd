"""The example fuses two classifiers as its weights say, and judges them on what neither has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.fusion import fuse
from examples.fusion.fuse import LABELS, Params, Weights
from stages.core.errors import UserError
from stages.models import emotion2vec
from stages.models.shared.checkpoint import torch_artifact
from tests.workspace import ROOT

CHECKPOINT = ROOT / "zoo" / "emotion2vec"
VOICE, TEXT = np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([[0.1, 0.9], [0.9, 0.1]])


@pytest.fixture(scope="module")
def settings() -> Params:
    small = {"checkpoint": CHECKPOINT, "utterances": 42, "sentences": 280, "resamples": 200}
    return fuse.read_params().model_copy(update=small)


@pytest.fixture(scope="module")
def found(settings: Params) -> dict[str, Any]:
    return fuse.evaluate(settings, torch_artifact(emotion2vec, emotion2vec.load(CHECKPOINT)))


@pytest.mark.parametrize(
    ("voice", "text", "best"),
    [
        pytest.param((1, 1), (0, 0), [0, 1], id="voice"),
        pytest.param((0, 0), (1, 1), [1, 0], id="text"),
        pytest.param((0.7, 0.7), (0.3, 0.3), [1, 1], id="both"),
        pytest.param((0.7, 0.7), (0.3, 0.1), [0, 1], id="the-text-says-little-of-b"),
    ],
)
def test_each_label_has_weights_of_its_own(voice: tuple[float, ...], text: tuple[float, ...], best: list[int]):
    weights = {name: Weights(voice=v, text=t) for name, v, t in zip("ab", voice, text, strict=True)}
    assert fuse.fuse(VOICE, TEXT, weights, "ab").argmax(axis=1).tolist() == best


def test_weights_of_a_label_that_emotion2vec_lacks_are_refused():
    weights = {name: Weights(voice=1, text=1) for name in ("angry", "bored")}
    with pytest.raises(UserError, match=r"weights: found \['angry', 'bored'\], wanted .* \['angry', 'sad'\]"):
        fuse.fuse(VOICE, TEXT, weights, ["angry", "sad"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("plain: 0.4", "plane: 0.4", r"plane: unknown key; did you mean 'plain'", id="key"),
        pytest.param(
            "voice: 0.7", "voice: -1", r"weights\.angry\.voice: found -1; .* greater than or equal", id="weight"
        ),
    ],
)
def test_a_setting_that_cannot_work_is_refused(tmp_path: Path, old: str, new: str, said: str):
    path = tmp_path / "params.yaml"
    path.write_text(fuse.PARAMS.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=said):
        fuse.read_params(path)


def test_no_sentence_is_learned_from_and_judged_by():
    learned, judged = (
        {(language, end) for label in LABELS for language, ends in by_label(label).items() for end in ends}
        for by_label in (
            lambda label: fuse.endings(label, evaluation=False),
            lambda label: fuse.endings(label, evaluation=True),
        )
    )
    assert not learned & judged
    assert len(learned | judged) == len(LABELS) * 2 * 12


def test_the_same_seed_gives_the_same_utterances_of_all_labels(settings: Params):
    few = settings.model_copy(update={"utterances": 7})
    first, again = (list(fuse.speak_utterances(few)) for _ in range(2))
    assert {utterance.label for utterance in first} == set(LABELS)
    assert len({utterance.speaker for utterance in first}) == 7
    assert all(np.array_equal(a.samples, b.samples) and a.text == b.text for a, b in zip(first, again, strict=True))


def test_voice_and_text_tell_more_than_chance_and_fused_no_less(found: dict[str, Any]):
    assert set(found) == {"voice", "text", "fused"}
    for of_one in found.values():
        assert of_one["ci"][0] <= of_one["accuracy"] <= of_one["ci"][1]
    assert min(found["voice"]["ci"][0], found["text"]["ci"][0]) > 1 / len(LABELS)
    assert found["fused"]["accuracy"] >= max(found["voice"]["accuracy"], found["text"]["accuracy"])
    assert found["voice"]["fused"]["drift"] == pytest.approx(found["fused"]["accuracy"] - found["voice"]["accuracy"])


def test_weight_for_one_alone_gives_what_it_alone_gives(settings: Params):
    labels = emotion2vec.labels(CHECKPOINT)
    alone = dict.fromkeys(labels, Weights(voice=0, text=1))
    text = fuse.read(settings, labels, ["She has been cheated at school", "他今天在车上得了大奖"])
    assert [labels[i] for i in fuse.fuse(np.full_like(text, 0.5), text, alone, labels).argmax(axis=1)] == [
        "angry",
        "happy",
    ]
    np.testing.assert_allclose(text.sum(axis=1), 1)
