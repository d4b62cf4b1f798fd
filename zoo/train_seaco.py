"""Trains the SeACo-Paraformer miniature on what espeak-ng says of `stages/corpora/hotword_commands.py`.

    python -m zoo.train_seaco

FunASR's own classes, front end and losses, as zoo/seaco_paraformer/config.yaml says. In two parts, as Shi et al.,
"SeACo-Paraformer", 2024, section 3: first the recognizer, from the weights of zoo/paraformer; then, with those fixed,
what spots the hotwords. So small a network does not find out by itself that lists matter, and is helped: the bias
encoder first learns to keep both characters of a word, attention is held to the word that is said (guided attention,
Tachibana, Uenoyama & Aihara, 2018), and positions without a hotword count little at first. Seeded and on one thread, so
the same machine writes the same bytes. Prints the character error rate and the recall of the names on the evaluation
split, without and with their lists.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jiwer
import numpy as np
import torch
import yaml

from stages.corpora import hotword_commands, manifest, spoken_commands
from stages.models import seaco_paraformer
from stages.models.paraformer.network import load_frontend
from stages.models.paraformer.scoring import recognize
from stages.models.shared.asr import normalized
from stages.models.shared.checkpoint import importing_funasr
from zoo import train_paraformer
from zoo.train_paraformer import LEARNING_RATE, SEEDS, WARMUP_STEPS, ZOO, batches

with importing_funasr():
    from funasr.frontends.wav_frontend import WavFrontend
    from funasr.models.bicif_paraformer.model import BiCifParaformer
    from funasr.tokenizer.char_tokenizer import CharTokenizer

PLAIN, FOLDER = ZOO / "paraformer", ZOO / "seaco_paraformer"
CHARACTERS = sorted({*spoken_commands.characters(), *hotword_commands.characters()})
TOKENS = ["<blank>", "<s>", "</s>", *CHARACTERS, "<no_bias>", "<unk>"]
NO_BIAS = TOKENS.index("<no_bias>")
UTTERANCES = {"commands": 500, "names": 2000}  # of each seed
STEPS = {"recognizer": 1800, "words": 1500, "hotwords": 8000}
HOTWORD_RATE = 1.5e-3
DISTRACTORS = 40  # at most, words listed and not said, in a batch
NAMES = 0.85  # of the words that are said and may be listed, the share of names; the others are any few characters
UNGUIDED = 2  # layers, of which attention may go where it wants

Config = dict[str, Any]


def examples(seed: int, frontend_conf: Config) -> list[train_paraformer.Example]:
    """Synthesize utterances of the training part: features (frames, 560) after CMVN, and their token ids."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, 1])
    frontend = WavFrontend(cmvn_file=str(PLAIN / "am.mvn"), **frontend_conf)
    tokenizer = CharTokenizer(token_list=TOKENS)
    made = []
    for kind, count in UTTERANCES.items():
        for _ in range(count):
            if kind == "names":
                samples, _, text, _ = hotword_commands.utterance("training", rng)
            else:
                samples, _, text = spoken_commands.utterance("training", rng)
            waveform = torch.from_numpy(samples).float()[None]
            features = frontend(waveform, [waveform.shape[1]])[0][0]
            made.append((features, torch.tensor(tokenizer.encode(text))))
    return made


def start_from_plain(model: torch.nn.Module) -> None:
    """Take over the plain miniature's weights; of a table over tokens, the rows of the tokens that both have."""
    weights = torch.load(PLAIN / "model.pt", weights_only=True)
    theirs = json.loads((PLAIN / "tokens.json").read_text(encoding="utf-8"))
    rows = [(TOKENS.index(token), row) for row, token in enumerate(theirs)]
    own = model.state_dict()
    for name, weight in weights.items():
        if name in own and own[name].shape == weight.shape:
            own[name] = weight
        elif name in own and own[name].shape[1:] == weight.shape[1:]:
            for ours, row in rows:
                own[name][ours] = weight[row]
    model.load_state_dict(own)


def minimize(parameters: Any, losses: Iterator[tuple[torch.Tensor, dict[str, float]]], steps: int, rate: float) -> None:
    """Minimize the losses with Adam; the learning rate rises linearly to `rate`, then falls as a cosine to 0."""
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=rate)

    def share(step: int) -> float:
        return float(min(step / WARMUP_STEPS, 0.5 + 0.5 * np.cos(np.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
    started = time.process_time()
    for step, (loss, stats) in enumerate(losses):
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        if step % 500 == 0 or step == steps - 1:
            shown = {name: round(float(value), 3) for name, value in stats.items()}
            print(f"step {step} of {steps}, {time.process_time() - started:.0f} s of CPU: {shown}", flush=True)


def recognizer_losses(model: Any, data: list[train_paraformer.Example]) -> Iterator[Any]:
    """Yield FunASR's loss of Paraformer with time stamps, over shuffled batches."""
    for batch in batches(data, STEPS["recognizer"], np.random.default_rng(SEEDS[0])):
        loss, stats, _ = BiCifParaformer.forward(model, *batch)
        yield loss, {name: stats[name] for name in ("loss_att", "acc", "loss_pre", "loss_pre2")}


def word_losses(model: Any, heads: torch.nn.ModuleList) -> Iterator[Any]:
    """Yield how badly two linear heads tell the two characters of random words from the words' embeddings."""
    generator = torch.Generator().manual_seed(SEEDS[0])
    for _ in range(STEPS["words"]):
        words = torch.randint(TOKENS.index(CHARACTERS[0]), NO_BIAS, (256, 2), generator=generator)
        embedded = model._hotword_representation(words, torch.full((len(words),), 2))  # noqa: SLF001
        losses = [torch.nn.functional.cross_entropy(head(embedded), words[:, i]) for i, head in enumerate(heads)]
        loss = torch.stack(losses).sum()
        yield loss, {"loss": loss.detach()}


def hotword_losses(model: Any, data: list[train_paraformer.Example], ids: Callable[[str], list[int]]) -> Iterator[Any]:
    """Yield the loss of FunASR's bias decoder plus that of its attention, with hotword lists drawn for each batch."""
    rng = np.random.default_rng(SEEDS[1])
    names = {tuple(ids(name)) for name in hotword_commands.names()}
    everyone = sorted(names)
    attention: list[torch.Tensor] = []
    for layer in model.seaco_decoder.decoders[UNGUIDED:]:
        layer.src_attn.dropout.register_forward_hook(lambda _, __, weights: attention.append(weights))
    for step, (features, lengths, text, text_lengths) in enumerate(batches(data, STEPS["hotwords"], rng)):
        done = step / STEPS["hotwords"]
        harder = min(1.0, 2 * done)
        rows = [row[:length] for row, length in zip(text.tolist(), text_lengths.tolist(), strict=True)]
        said = {word for row in rows if (word := draw_word(row, names, rng)) and rng.random() < 1 - 0.4 * harder}
        others = {everyone[i] for i in rng.integers(len(everyone), size=rng.integers(1 + int(DISTRACTORS * harder)))}
        either = sorted(said | others)
        listed = [either[i] for i in rng.permutation(len(either))]
        label = torch.full_like(text, NO_BIAS)
        counted = 0.4 + 0.6 * min(1.0, max(0.0, 2.5 * (done - 0.5)))  # of the positions without a hotword
        label[(text < 0) | torch.from_numpy(rng.random(label.shape) > counted)] = -1
        place = torch.full_like(text, len(listed))  # of `<s>`, which stands for none
        for number, word in enumerate(listed):
            for row, tokens in enumerate(rows):
                for start in range(len(tokens) - len(word) + 1):
                    if tuple(tokens[start : start + len(word)]) == word:
                        label[row, start : start + len(word)] = torch.tensor(word)
                        place[row, start : start + len(word)] = number
        attention.clear()
        loss = funasr_loss(model, (features, lengths, text, text_lengths), listed, label)
        aside = [weights[:, :, :-1].mean(dim=1).gather(-1, place[..., None])[..., 0] for weights in attention]
        guide = -torch.stack([torch.log(share[label >= 0] + 1e-6).mean() for share in aside]).mean()
        yield loss + guide, {"loss": loss.detach(), "attention": guide.detach()}


def funasr_loss(
    model: Any, batch: Sequence[torch.Tensor], words: Sequence[tuple[int, ...]], label: torch.Tensor
) -> torch.Tensor:
    """Compute FunASR's loss of its bias decoder alone; its `forward` adds the loss of the recognizer, fixed here."""
    features, lengths, text, text_lengths = batch
    listed = [torch.tensor(word) for word in words] + [torch.tensor([model.sos])]
    with torch.no_grad():
        encoded, encoded_lengths = model.encode(features, lengths)
    padded = torch.nn.utils.rnn.pad_sequence(listed, batch_first=True)
    word_lengths = torch.tensor([len(word) for word in listed])
    targets = append_end(model, text, text_lengths)
    loss: torch.Tensor = model._calc_seaco_loss(encoded, encoded_lengths, *targets, padded, word_lengths, label)  # noqa: SLF001
    return loss


def draw_word(tokens: list[int], names: set[tuple[int, ...]], rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a word of the text: a name, or now and then, and where it has none, two to four characters in a row."""
    found = [pair for _, pair in find_names(tokens, names)]
    if found and rng.random() < NAMES:
        return found[0]
    size = int(rng.integers(2, min(5, len(tokens) + 1)))
    start = int(rng.integers(len(tokens) - size + 1))
    return tuple(tokens[start : start + size])


def append_end(model: Any, text: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Append `</s>` to each row: token ids (batch, tokens + 1), and their lengths."""
    longer = torch.nn.functional.pad(text, (0, 1), value=-1)
    longer[torch.arange(len(text)), lengths] = model.eos
    return longer, lengths + 1


def find_names(tokens: list[int], named: set[tuple[int, ...]]) -> list[tuple[int, tuple[int, ...]]]:
    """Find the names in a text, each with the place where it begins."""
    pairs = [(start, tuple(tokens[start : start + 2])) for start in range(len(tokens) - 1)]
    return [(start, pair) for start, pair in pairs if pair in named]


def report(folder: Path) -> None:
    """Print the size, and how well FunASR's `inference` recognizes the evaluation split with lists of each length."""
    config, model = seaco_paraformer.read_config(folder), seaco_paraformer.load(folder)
    tools = {"tokenizer": CharTokenizer(token_list=TOKENS), "frontend": load_frontend(folder, config)}
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {(folder / 'model.pt').stat().st_size} bytes")
    with TemporaryDirectory() as made:
        hotword_commands.make(25, {"evaluation": 48}, Path(made))
        recordings = manifest.read(Path(made), "evaluation")
        audio = [recording.samples() for recording in recordings]
    for count in (0, 1, 50, 500):
        errors = recalled = length = 0
        for recording, samples in zip(recordings, audio, strict=True):
            hotword = " ".join(recording.hotwords[:count])
            text = normalized(recognize(model, samples, hotword=hotword, **tools)).replace(" ", "")
            aligned = jiwer.process_words(" ".join(recording.text), " ".join(text) or "-")
            errors += aligned.substitutions + aligned.deletions + aligned.insertions
            length += len(recording.text)
            recalled += recording.hotwords[0] in text
        print(f"{count} words: CER {errors / length:.4f} of {length}, recall {recalled / len(recordings):.4f}")


def save(model: torch.nn.Module) -> None:
    """Write the weights, in fp16 to stay small, the token list, the plain miniature's CMVN and a word list."""
    torch.save({name: weight.half() for name, weight in model.state_dict().items()}, FOLDER / "model.pt")
    (FOLDER / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    shutil.copyfile(PLAIN / "am.mvn", FOLDER / "am.mvn")
    (FOLDER / "seg_dict").write_text("".join(f"{c} {c}\n" for c in CHARACTERS), encoding="utf-8")


def main() -> None:
    """Train, write into zoo/seaco_paraformer, and report."""
    torch.set_num_threads(1)
    config = yaml.safe_load((FOLDER / "config.yaml").read_text(encoding="utf-8"))
    frontend_conf = config["frontend_conf"]
    with ProcessPoolExecutor(len(SEEDS)) as pool:
        made = pool.map(examples, SEEDS, [frontend_conf] * len(SEEDS))
        data = [example for part in made for example in part]
    torch.manual_seed(SEEDS[0])
    model = seaco_paraformer.build(config | {"vocab_size": len(TOKENS)})
    start_from_plain(model)
    model.train()
    minimize(model.parameters(), recognizer_losses(model, data), STEPS["recognizer"], LEARNING_RATE)
    model.eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    parts = (model.bias_encoder, model.seaco_decoder, model.hotword_output_layer)
    model.hotword_output_layer.load_state_dict(model.decoder.output_layer.state_dict())
    trained = [p.requires_grad_(True) for part in parts for p in part.parameters()]
    heads = torch.nn.ModuleList(torch.nn.Linear(model.inner_dim, len(TOKENS)) for _ in range(2))
    first = [*model.bias_encoder.parameters(), *heads.parameters()]
    minimize(first, word_losses(model, heads), STEPS["words"], 2 * HOTWORD_RATE)
    ids = CharTokenizer(token_list=TOKENS).encode
    minimize(trained, hotword_losses(model, data, ids), STEPS["hotwords"], HOTWORD_RATE)
    save(model)
    report(FOLDER)


if __name__ == "__main__":
    main()
