"""Trains the SenseVoiceSmall miniature on what espeak-ng says of `stages/corpora/tagged_commands.py`.

    python -m zoo.train_sensevoice

FunASR's own classes, front end, masks and losses, as zoo/sensevoice/config.yaml says: CTC of the text, and
cross-entropy of the four tags before it. A recording is learned from with figures and without; half of the time the
network is told the language. Short recordings come first. Each time its voice is changed a little: else the network
learns the voices by heart. Seeded and on one thread, so the same machine writes the same bytes. Prints the character
error rate and the accuracy of the tags on the evaluation split.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sentencepiece
import torch
import yaml
from numpy.typing import NDArray

from stages.core import params
from stages.corpora import manifest, tagged_commands
from stages.corpora.tagged_commands import EMOTIONS, EVENTS, LANGUAGES
from stages.models import sensevoice
from stages.models.sensevoice.network import QUERIES
from stages.models.shared import checkpoint, pieces
from zoo.train_paraformer import SEEDS, ZOO, Example, batches, moments, write_cmvn
from zoo.train_seaco import minimize

with checkpoint.importing_funasr():
    from funasr.frontends.wav_frontend import WavFrontend
    from funasr.models.specaug.specaug import SpecAugLFR

FOLDER = ZOO / "sensevoice"
DATA_SEED, UTTERANCES, PROCESSES = 2, 10_000, 2
COUNTED = 3000  # utterances that the mean and the variance of bands are of
SENTENCES = 4000  # of each language, to learn the pieces from
PIECES = 190
BATCH = 32
TAGS_WEIGHT = 3  # of the tags' loss: that of a text is of all its tokens
BANDS = 80
TRACT, TRACTS = 0.1, 21  # how much longer or shorter another vocal tract may be, and how many there are
LEVEL_DB, LEVELS = 5.0, 7  # how much louder or less loud bands may be, by a curve through so many points
STYLES = {"withitn": "written", "woitn": "text"}  # what FunASR calls a way of writing, and where a manifest has it
TAGS = [f"<|{name}|>" for name in (*LANGUAGES, *map(str.upper, EMOTIONS), *EVENTS, *STYLES)]

Config = dict[str, Any]
Made = tuple[NDArray[np.float16], dict[str, str]]  # stacked fbanks before CMVN, and what is true of the recording
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Part:
    """A part of the training. share: of recordings, the shortest ones. change: of voices, as a share of the most."""

    share: float
    steps: int
    learning_rate: float
    change: float


MASKED, WHOLE = (Part(0.3, 600, 2e-3, 1.0), Part(1.0, 6400, 2e-3, 1.0)), (Part(1.0, 3500, 1.5e-3, 0.5),)


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


def synthesize(first: int, frontend_conf: Config) -> list[Made]:
    """Synthesize utterances of the training part: that of number `first` and every PROCESSES-th after it."""
    torch.set_num_threads(1)
    frontend, made = WavFrontend(**frontend_conf), []
    for take in itertools.islice(tagged_commands.takes("training", DATA_SEED, UTTERANCES), first, None, PROCESSES):
        recording = tagged_commands.utterance(take, "training")
        waveform = torch.from_numpy(recording.samples).float()[None]
        made.append((frontend(waveform, [waveform.shape[1]])[0][0].half().numpy(), dict(recording.truth)))
    return made


def label(truth: dict[str, str], style: str, tokenizer: Any) -> torch.Tensor:
    """Return the token ids of a recording's tags and text in one of STYLES."""
    tags = (truth["language"], truth["label"].upper(), truth["event"], style)
    return torch.tensor(tokenizer.encode("".join(f"<|{tag}|>" for tag in tags) + truth[STYLES[style]]))


def warps(change: float) -> torch.Tensor:
    """Return what moves bands as other vocal tracts do: (TRACTS, BANDS, BANDS)."""
    bands, units = np.arange(BANDS), np.eye(BANDS)
    tracts = np.linspace(1 - TRACT * change, 1 + TRACT * change, TRACTS)
    moved = [[np.interp(bands * tract, bands, unit) for unit in units] for tract in tracts]
    return torch.from_numpy(np.array(moved, np.float32))


def change_voices(
    features: torch.Tensor, moves: torch.Tensor, level_db: float, rng: np.random.Generator
) -> torch.Tensor:
    """Change stacked fbanks (batch, frames, size) as another vocal tract and another microphone would.

    moves: as `warps` gives them, of which one is drawn for each recording. level_db: the most that a level moves.
    """
    batch, frames, size = features.shape
    drawn = moves[torch.from_numpy(rng.integers(len(moves), size=batch))]
    nats = torch.from_numpy(rng.uniform(-1, 1, (batch, 1, LEVELS)).astype(np.float32)) * level_db * np.log(10) / 10
    curves = torch.nn.functional.interpolate(nats, BANDS, mode="linear", align_corners=True)
    return (features.view(batch, -1, BANDS) @ drawn + curves).view(batch, frames, size)


def losses(
    model: Any, data: Sequence[Example], part: Part, normalize: Change, languages: dict[int, int]
) -> Iterator[Any]:
    """Yield FunASR's losses over shuffled batches of a part; the network runs in bf16.

    languages: the query of each language's token, told every other step. FunASR tells a language four times of five;
    nobody tells it what the data set measures.
    """
    rng, moves = np.random.default_rng(SEEDS[0]), warps(part.change)
    seen = data[: round(part.share * len(data))]
    for step, (features, lengths, tokens, sizes) in enumerate(batches(seen, part.steps, rng, BATCH)):
        model.lid_int_dict = languages if step % 2 else {}
        speech = normalize(change_voices(features.float(), moves, LEVEL_DB * part.change, rng))
        with torch.autocast("cpu", torch.bfloat16):
            encoded, positions = model.encode(speech, lengths, tokens)
        tags, text = encoded.float().tensor_split([QUERIES], dim=1)
        of_text, _ = model._calc_ctc_loss(text, positions - QUERIES, tokens[:, QUERIES:], sizes - QUERIES)  # noqa: SLF001
        of_tags, right = model._calc_rich_ce_loss(tags, tokens[:, :QUERIES])  # noqa: SLF001
        yield of_text + TAGS_WEIGHT * of_tags, {"text": of_text.detach(), "tags": of_tags.detach(), "right": right}


def train(model: Any, data: Sequence[Example], tokenizer: Any, normalize: Change, parts: Sequence[Part]) -> None:
    """Train in parts, one after the other."""
    ids = {name: tokenizer.sp.PieceToId(f"<|{name}|>") for name in (*LANGUAGES, *STYLES)}
    languages = {ids[name]: model.lid_dict[name] for name in LANGUAGES}
    model.textnorm_int_dict = {ids[style]: model.textnorm_dict[style] for style in STYLES}
    mixed = [data[i] for i in np.random.default_rng(SEEDS[0]).permutation(len(data))]
    data = sorted(mixed, key=lambda example: len(example[0]))
    model.train()
    for part in parts:
        minimize(model.parameters(), losses(model, data, part, normalize, languages), part.steps, part.learning_rate)
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
    with ProcessPoolExecutor(PROCESSES) as pool:
        parts = pool.map(synthesize, range(PROCESSES), [config["frontend_conf"]] * PROCESSES)
        made = [(torch.from_numpy(features), truth) for part in parts for features, truth in part]
    data = [(features, label(truth, style, tokenizer)) for style in STYLES for features, truth in made]
    shift, scale = moments(data[:COUNTED], BANDS)
    write_cmvn(shift, scale, FOLDER)

    def normalize(features: torch.Tensor) -> torch.Tensor:
        return (features + shift) * scale

    torch.manual_seed(SEEDS[0])
    model = sensevoice.build(config | {"vocab_size": len(listed)})
    model.specaug = SpecAugLFR(**config["specaug_conf"])
    train(model, data, tokenizer, normalize, MASKED)
    save(model)
    torch.manual_seed(SEEDS[1])
    model = sensevoice.load(FOLDER)  # which has no masks
    train(model, data, tokenizer, normalize, WHOLE)
    save(model)
    report()


if __name__ == "__main__":
    main()
