"""The stream that FSMN-VAD is pruned on: as recorded, or new mixtures at every step."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import torch

from stages.corpora import manifest
from stages.models.fsmn_vad import stream
from stages.models.fsmn_vad.stream import BATCH, CROP
from tests.workspace import PRUNE


def test_without_variations_crops_are_of_the_recordings(tiny_checkpoint: Path, tiny_corpus: Path):
    recordings = manifest.read(tiny_corpus, "tuning")
    made = stream.calibration(tiny_checkpoint, recordings, PRUNE.model_copy(update={"variations": 0}))
    assert made.frames.shape == (4 * 298, 400)  # of 3 s, in windows of 25 ms
    crops = made.crops(torch.Generator().manual_seed(0))
    assert crops.shape == (BATCH, CROP, 400)
    starts = made.frames.unfold(0, CROP, 1).transpose(1, 2)
    assert all(any(torch.equal(crop, start) for start in starts) for crop in crops)


def test_with_variations_crops_are_new_at_every_step_and_repeat(tiny_checkpoint: Path, tiny_corpus: Path):
    recordings = manifest.read(tiny_corpus, "calibration")
    draws = []
    for seed in (1, 1, 2):
        made = stream.calibration(tiny_checkpoint, recordings, PRUNE.model_copy(update={"seed": seed}))
        assert len(made) > 1100  # twelve seconds of recordings, twelve or more of mixtures
        generator = torch.Generator()
        draws.append([made.crops(generator) for _ in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not torch.equal(draws[0][0], draws[0][1])
    assert not torch.equal(draws[0][0], draws[2][0])


def test_crops_drawn_ahead_come_in_order():
    drawn = stream.draw_ahead(lambda rng: torch.from_numpy(rng.random(3)), seed=5)
    first = list(islice(drawn, 4))
    again = list(islice(stream.draw_ahead(lambda rng: torch.from_numpy(rng.random(3)), seed=5), 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
