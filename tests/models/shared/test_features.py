"""Features of FunASR's front end that are computed once for modes which go over the same recordings."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from stages.models.shared import checkpoint
from stages.models.shared import features as module
from stages.models.shared.features import keep_features, keeping_features
from tests.workspace import ROOT

SETTINGS = {"fs": 16000, "window": "hamming", "n_mels": 80, "lfr_m": 7, "lfr_n": 6, "dither": 0.0}
AUDIO = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (1, 8000)).astype(np.float32))
LENGTHS = torch.tensor([8000])


def load(settings: dict[str, Any]) -> Any:
    with checkpoint.importing_funasr():
        from funasr.frontends.wav_frontend import WavFrontend

    return WavFrontend(**settings)


class Counted:
    """FunASR's front end, which counts how often it computes."""

    def __init__(self) -> None:
        self.own, self.computed = load(SETTINGS), 0

    def forward(self, *args: Any) -> Any:
        self.computed += 1
        return self.own(*args)


@pytest.fixture
def frontend() -> Counted:
    return keep_features(Counted(), SETTINGS)


def test_the_same_audio_is_computed_once_within_the_block(frontend: Counted):
    expected, frames = load(SETTINGS)(AUDIO, LENGTHS)
    with keeping_features():
        for _ in range(3):
            features, found = frontend.forward(AUDIO.clone(), LENGTHS)
            assert torch.equal(features, expected)
            assert torch.equal(found, frames)
            features *= 22.6  # as FunASR's encoders do
        assert frontend.computed == 1
        frontend.forward(AUDIO * 0.5, LENGTHS)
        frontend.forward(AUDIO, LENGTHS // 2)
        assert frontend.computed == 3
    frontend.forward(AUDIO, LENGTHS)
    assert frontend.computed == 4


def test_other_settings_have_other_features(frontend: Counted):
    other = SETTINGS | {"lfr_m": 1, "lfr_n": 1}
    plain = keep_features(load(other), other)
    with keeping_features():
        assert frontend.forward(AUDIO, LENGTHS)[0].shape[-1] == 560
        assert plain(AUDIO, LENGTHS)[0].shape[-1] == 80


def test_what_there_is_no_room_for_is_computed_again(frontend: Counted, monkeypatch: pytest.MonkeyPatch):
    size = sum(tensor.nbytes for tensor in load(SETTINGS)(AUDIO, LENGTHS))
    monkeypatch.setattr(module, "KEPT_BYTES", size)
    with keeping_features():
        for audio in (AUDIO, AUDIO * 0.5, AUDIO, AUDIO * 0.5):
            frontend.forward(audio, LENGTHS)
    assert frontend.computed == 3


def test_what_may_need_no_torch_begins_without_it():
    stages = "from stages import evaluate, gate, package, quantize, reference, report"
    commands = "from stages.commands import compare, gate, publish, repro, verify"
    code = f"import sys; {stages}; {commands}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
