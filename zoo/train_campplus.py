"""Trains the miniature of CAM++ and prints its figures: `python -m zoo.train_campplus zoo/campplus`.

FunASR's own class as the folder's config.yaml describes it, trained to tell voices of stages/corpora/speaker_trials.py
apart that are for training only, in sentences and rooms of their own. Weights are stored in fp16, which FunASR's loader
takes as it does fp32.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from stages.core import progress
from stages.corpora import sentences, speaker_trials, voices
from stages.models.campplus.network import build, read_config
from stages.models.campplus.scoring import features

SEED = 30
SPEAKERS = 258  # six voices of each variant
UTTERANCES = 6  # of each speaker
LANGUAGES = ("cmn", "en-us", "de", "es", "ja", "ru")
FRAMES = 90  # of a crop
BATCH = 32
LONGEST = 200  # frames that the last layer is fitted to
SHRINKAGE = 1e-3
LEARNING_RATE = 2e-3
MARGIN, SCALE = 0.15, 20.0  # the margin grows in the second half

Crops = list[tuple[torch.Tensor, int]]
"""Features (frames, 80) of each recording, and its speaker."""


def main(argv: list[str]) -> None:
    """Train the network that the folder's config.yaml describes, and write its model.pt there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    config = read_config(args.folder)
    model = build(config | {"model_conf": config["model_conf"] | {"memory_efficient": False}})  # a third faster
    data = recordings()
    train(model, data, args.steps)
    fit_last_layer(model, data)
    torch.save({name: halve(weight) for name, weight in model.state_dict().items()}, args.folder / "model.pt")


def halve(weight: torch.Tensor) -> torch.Tensor:
    """Return numbers with a fraction as fp16, and counts as they are."""
    return weight.half() if weight.is_floating_point() else weight


def recordings() -> Crops:
    """Record all training voices, each utterance in a room of its own, as FunASR's features."""
    rng = np.random.default_rng(SEED)
    cast = [voices.cast(speaker_trials.TRAINING_VARIANTS, number, rng) for number in range(SPEAKERS)]
    first = cast[: len(speaker_trials.TRAINING_VARIANTS)]
    crowd = {voice.variant: voice.speak("今天一共来了八个人", "cmn") for voice in first}
    found = []
    for speaker, voice in enumerate(progress.each(cast, "voices")):
        for _ in range(UTTERANCES):
            language = str(rng.choice(LANGUAGES))
            text = " ".join(sentences.sentence(language, "calibration", rng) for _ in range(2))
            condition = speaker_trials.CONDITIONS[int(rng.integers(len(speaker_trials.CONDITIONS)))]
            samples = speaker_trials.record_in_room(voice, (language, text), condition, crowd, rng)
            found.append((features(torch.from_numpy(samples.astype(np.float32)))[0], speaker))
    return found


def train(model: Any, data: Crops, steps: int) -> None:
    """Train with AdamW and one cycle of the learning rate (Smith & Topin, "Super-convergence", 2018).

    In bf16 but for the margin, with images channels last: four times as fast on a CPU that has bf16.
    """
    model.train().to(memory_format=torch.channels_last)
    rng = np.random.default_rng(SEED)
    centres = torch.nn.Parameter(torch.randn(SPEAKERS, model.xvector.dense.linear.out_channels))
    parameters = [*model.parameters(), centres]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    right = 0
    for step in range(1, steps + 1):
        inputs, labels = batch(data, rng)
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = model(inputs).float()
        cosines = torch.nn.functional.linear(*map(torch.nn.functional.normalize, (embeddings, centres)))
        loss = margin_loss(cosines, labels, MARGIN * max(0.0, 2 * step / steps - 1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        right += int((cosines.argmax(dim=1) == labels).sum())
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.3f} accuracy {right / (50 * BATCH):.3f}", flush=True)
            right = 0
    model.eval()


def fit_last_layer(model: Any, data: Crops) -> None:
    """Replace the last layer by the linear discriminants of the speakers, of what is pooled from 2 s of each recording.

    Dehak et al., "Front-end factor analysis for speaker verification", 2011, section III.A: what varies within speakers
    counts for less in a cosine.
    """
    pooled: list[torch.Tensor] = []
    handle = model.xvector.stats.register_forward_hook(lambda _, __, output: pooled.append(output.float()))
    long_enough = [(found[:LONGEST], speaker) for found, speaker in data if len(found) >= LONGEST]
    inputs = torch.stack([found - found.mean(dim=0) for found, _ in long_enough])
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for some in inputs.split(BATCH):  # type: ignore[no-untyped-call]
            model(some)
    handle.remove()
    discriminants = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE)
    statistics = torch.cat(pooled)
    discriminants.fit(statistics.numpy(), [speaker for _, speaker in long_enough])
    size, last = model.xvector.dense.linear.out_channels, model.xvector.dense
    weight = torch.from_numpy(discriminants.scalings_[:, :size].T).float()
    last.linear.weight.data = weight[:, :, None]
    last.nonlinear.batchnorm.running_mean = weight @ statistics.mean(dim=0)
    last.nonlinear.batchnorm.running_var.fill_(1)


def margin_loss(cosines: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the additive angular margin loss of Deng et al., "ArcFace", 2019.

    cosines: of embeddings with the speakers' centres, (batch, speakers).
    """
    angles = cosines.clamp(-1 + 1e-6, 1 - 1e-6).acos()
    own = torch.nn.functional.one_hot(labels, cosines.shape[1])
    return torch.nn.functional.cross_entropy(SCALE * (angles + margin * own).cos(), labels)


def batch(data: Crops, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw features (BATCH, FRAMES, 80), normalized as FunASR does, and speakers (BATCH,)."""
    chosen = [data[int(i)] for i in rng.choice(len(data), BATCH, replace=False)]
    starts = [int(rng.integers(len(found) - FRAMES + 1)) for found, _ in chosen]
    crops = [found[start : start + FRAMES] for (found, _), start in zip(chosen, starts, strict=True)]
    return torch.stack([crop - crop.mean(dim=0) for crop in crops]), torch.tensor([speaker for _, speaker in chosen])


if __name__ == "__main__":
    main(sys.argv[1:])
