"""Trains the miniature of emotion2vec and prints its figures: `python -m zoo.train_emotion2vec zoo/emotion2vec`.

FunASR's own class as the folder's config.yaml describes it, trained at once on labels, without pre-training, on
what stages/corpora/emotional_prosody.py says with speakers and sentences for training only. Each is acted anew every
time it is drawn, by a voice that is changed a little: else the network learns the voices by heart.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.fft import next_fast_len

from stages.core import params
from stages.corpora import emotional_prosody, manifest
from stages.corpora.espeak import speak
from stages.models import emotion2vec
from stages.models.emotion2vec.metrics import labels
from stages.models.shared.checkpoint import torch_networks

SEED = 20
UTTERANCES = 4500
BATCH = 16
LONGEST = 24_000  # samples
LEARNING_RATE = 2e-3

Voices = list[tuple[np.ndarray, str]]


def main(argv: list[str]) -> None:
    """Train the network that the folder's config.yaml describes, write its model.pt there and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=6000, help="0 only prints the figures")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    if args.steps:
        model = emotion2vec.build(emotion2vec.read_config(args.folder))
        train(model, labels(args.folder), args.steps)
        torch.save(model.state_dict(), args.folder / "model.pt")
    print_figures(args.folder)


def print_figures(folder: Path) -> None:
    """Print the accuracies of FunASR's own inference on the evaluation split of the data set in params.yaml."""
    model = emotion2vec.load(folder)
    graph_set = emotion2vec.graph_set(model)
    artifact = graph_set, torch_networks(graph_set, emotion2vec.export_modules(model))
    dataset: Any = params.load().datasets["emotional_prosody"]
    with tempfile.TemporaryDirectory() as place:
        emotional_prosody.make(dataset.seed, dataset.items, Path(place))
        recordings = manifest.read(Path(place), "evaluation")
        outcomes = emotion2vec.score(folder, artifact, "utterance", recordings)
        counts = emotion2vec.measure(folder, recordings, outcomes, outcomes)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(recordings)} recordings")
    for name in ("weighted_accuracy", "unweighted_accuracy"):
        right, count = (np.array([c[name][i] for c in counts]) for i in (0, 1))
        print(f"{name} {emotion2vec.METRICS[name].pool(right, count):.3f}")


def voices(labels: tuple[str, ...]) -> Voices:
    """Synthesize all sentences, float64 (samples,), each with the label that it is to act, the shortest first."""
    rng = np.random.default_rng(SEED)
    spoken = []
    for number in range(UTTERANCES):
        label, speaker = labels[number % len(labels)], str(rng.choice(emotional_prosody.TRAINING_SPEAKERS))
        speak_as = partial(speak, variant=speaker)
        _, samples = emotional_prosody.synthesize(label, speak_as, emotional_prosody.TRAINING_ENDINGS, rng)
        spoken.append((samples, label))
    return sorted(spoken, key=lambda pair: len(pair[0]))


def train(model: Any, names: tuple[str, ...], steps: int) -> None:
    """Train with AdamW and one cycle of the learning rate (Smith & Topin, "Super-convergence", 2018)."""
    model.train()
    rng = np.random.default_rng(SEED)
    data = voices(names)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    right = 0
    for step in range(1, steps + 1):
        waveforms, labels = batch(data, names, rng)
        logits = model.proj(model.extract_features(waveforms)["x"].mean(dim=1))
        loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        right += int((logits.argmax(dim=1) == labels).sum())
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} accuracy {right / (200 * BATCH):.3f}", flush=True)
            right = 0
    model.eval()


def batch(data: Voices, names: tuple[str, ...], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw normalized waveforms (BATCH, samples) and labels (BATCH,): the ends of utterances of about one length.

    The network has no use for padding without a mask, and the end is where a surprised voice rises.
    """
    first = int(rng.integers(len(data) - 4 * BATCH))
    chosen = [data[first + int(i)] for i in rng.choice(4 * BATCH, BATCH, replace=False)]
    acted = [emotional_prosody.act(label, perturb(voice, rng), rng) for voice, label in chosen]
    length = min(LONGEST, *map(len, acted))
    waveforms = torch.from_numpy(np.stack([samples[-length:] for samples in acted]).astype(np.float32))
    normalized = torch.nn.functional.layer_norm(waveforms, (length,))
    return normalized, torch.tensor([names.index(label) for _, label in chosen])


def perturb(voice: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change a voice, float64 (samples,): 0.87 to 1.15 times as fast and high, through a response within 5 dB."""
    factor = rng.uniform(0.87, 1.15)
    moved = np.interp(np.arange(int(len(voice) / factor)) * factor, np.arange(len(voice)), voice)
    length = next_fast_len(len(moved), real=True)
    bins = np.sqrt(np.linspace(0, 1, length // 2 + 1))
    gain = 10 ** (np.interp(bins, np.linspace(0, 1, 8), rng.uniform(-5, 5, 8)) / 20)
    return np.fft.irfft(np.fft.rfft(moved, length) * gain, length)[: len(moved)]


if __name__ == "__main__":
    main(sys.argv[1:])
