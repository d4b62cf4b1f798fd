"""Trains the SenseVoiceSmall miniature on what espeak-ng says of `stages/corpora/tagged_commands.py`.

    python -m zoo.train_sensevoice

FunASR's own classes, front end and losses, as zoo/sensevoice/config.yaml says: CTC of the text, and cross-entropy of
the four tags before it. Every recording is learned from twice, with figures and without; half of the time the network
is told the language. Short recordings come first. Seeded and on one thread, so the same machine writes the same bytes.
Prints the character error rate and the accuracy of the tags on the evaluation split.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sentencepiece
import torch
import yaml

from stages.core import params
from stages.corpora import manifest, tagged_commands
from stages.corpora.tagged_commands import EMOTIONS, EVENTS, LANGUAGES
from stages.models import sensevoice
from stages.models.shared import checkpoint, pieces
from zoo.train_paraformer import SEEDS, ZOO, Example, batches, moments, write_cmvn
from zoo.train_seaco import minimize

with checkpoint.importing_funasr():
    from funasr.frontends.wav_frontend import WavFrontend

FOLDER = ZOO / "sensevoice"
UTTERANCES = 2500  # of each seed, a process for each
SENTENCES = 4000  # of each language, to learn the pieces from
PIECES = 190
STEPS = {"short": 800, "all": 4200}
SHORT = 0.3  # the share of recordings that come first
LEARNING_RATE = 2e-3
STYLES = {"withitn": "written", "woitn": "text"}  # what FunASR calls a way of writing, and where a manifest has it
TAGS = [f"<|{name}|>" for name in (*LANGUAGES, *map(str.upper, EMOTIONS), *EVENTS, *STYLES)]

Config = dict[str, Any]
Made = tuple[torch.Tensor, dict[str, str]]  # stacked fbanks before CMVN, in float16, and what is true of the recording


def learn_pieces() -> bytes:
    """Learn a SentencePiece model from sentences of the training part, with a piece for each tag."""
    rng = np.random.default_rng(SEEDS[0])
    drawn = (tagged_commands.sentence(name, "training", rng) for name in LANGUAGES for _ in range(SENTENCES))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(text for pair in drawn for text in pair),
        model_writer=model,
        model_type="bpe",
        vocab_size=PIECES,
        user_defined_symbols=TAGS,
        split_digits=True,
        add_dummy_prefix=False,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def synthesize(seed: int, frontend_conf: Config) -> list[Made]:
    """Synthesize utterances of the training part."""
    torch.set_num_threads(1)
    frontend, made = WavFrontend(**frontend_conf), []
    for take in tagged_commands.takes("training", seed, UTTERANCES):
        recording = tagged_commands.utterance(take, "training")
        waveform = torch.from_numpy(recording.samples).float()[None]
        made.append((frontend(waveform, [waveform.shape[1]])[0][0].half(), dict(recording.truth)))
    return made


def label(truth: dict[str, str], style: str, tokenizer: Any) -> torch.Tensor:
    """Return the token ids of a recording's tags and text in one of STYLES."""
    tags = (truth["language"], truth["label"].upper(), truth["event"], style)
    return torch.tensor(tokenizer.encode("".join(f"<|{tag}|>" for tag in tags) + truth[STYLES[style]]))


def losses(model: Any, data: list[Example], steps: int, languages: dict[int, int]) -> Iterator[Any]:
    """Yield FunASR's loss over shuffled batches. languages: the query of each language's token, told every other step.

    FunASR tells a language four times of five; nobody tells it what the data set measures.
    """
    for step, batch in enumerate(batches(data, steps, np.random.default_rng(SEEDS[0]))):
        model.lid_int_dict = languages if step % 2 else {}
        loss, stats, _ = model(*batch)
        yield loss, {name: stats[name] for name in ("loss_ctc", "loss_rich", "acc_rich")}


def train(model: Any, data: list[Example], tokenizer: Any) -> None:
    """Train on the shortest recordings, then on all."""
    ids = {name: tokenizer.sp.PieceToId(f"<|{name}|>") for name in (*LANGUAGES, *STYLES)}
    languages = {ids[name]: model.lid_dict[name] for name in LANGUAGES}
    model.textnorm_int_dict = {ids[style]: model.textnorm_dict[style] for style in STYLES}
    data = sorted(data, key=lambda example: len(example[0]))
    model.train()
    for part, share in (("short", SHORT), ("all", 1.0)):
        seen = data[: round(share * len(data))]
        minimize(model.parameters(), losses(model, seen, STEPS[part], languages), STEPS[part], LEARNING_RATE)
    model.eval()


def save(model: torch.nn.Module) -> None:
    """Write the weights, in fp16 to stay small."""
    torch.save({name: weight.half() for name, weight in model.state_dict().items()}, FOLDER / "model.pt")


def report() -> None:
    """Print the size, and the metrics of FunASR's own inference on the evaluation split of the data set in params."""
    model = sensevoice.load(FOLDER)
    dataset: Any = params.load().datasets["tagged_commands"]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {(FOLDER / 'model.pt').stat().st_size} bytes")
    with TemporaryDirectory() as made:
        tagged_commands.make(dataset.seed, {"evaluation": dataset.items["evaluation"]}, Path(made))
        recordings = manifest.read(Path(made), "evaluation")
        artifact = checkpoint.torch_artifact(sensevoice, model)
        for mode in sensevoice.MODES:
            outcomes = sensevoice.score(FOLDER, artifact, mode, recordings)
            counts = sensevoice.measure(FOLDER, recordings, outcomes, outcomes)
            for metric in ("cer", "language_accuracy", "emotion_accuracy", "event_accuracy"):
                right, count = (sum(c[metric][i] for c in counts) for i in (0, 1))
                print(f"{mode} {metric} {right / count:.4f} of {count}")


def main() -> None:
    """Train, write into zoo/sensevoice, and report."""
    torch.set_num_threads(1)
    config = yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))
    (FOLDER / pieces.FILE).write_bytes(learn_pieces())
    tokenizer = pieces.load(FOLDER)
    listed = [tokenizer.sp.IdToPiece(i) for i in range(tokenizer.get_vocab_size())]
    (FOLDER / "tokens.json").write_text(json.dumps(listed, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    with ProcessPoolExecutor(len(SEEDS)) as pool:
        made = [one for part in pool.map(synthesize, SEEDS, [config["frontend_conf"]] * len(SEEDS)) for one in part]
    labelled = [(f, label(truth, style, tokenizer)) for f, truth in made for style in STYLES]
    shift, scale = moments(labelled, config["frontend_conf"]["n_mels"])
    write_cmvn(shift, scale, FOLDER)
    torch.manual_seed(SEEDS[0])
    model = sensevoice.build(config | {"vocab_size": len(listed)})
    train(model, [((f + shift) * scale, tokens) for f, tokens in labelled], tokenizer)
    save(model)
    report()


if __name__ == "__main__":
    main()
