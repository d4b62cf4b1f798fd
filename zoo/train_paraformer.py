"""Trains the Paraformer miniatures on what espeak-ng says of `stages/corpora/spoken_commands.py`.

    python -m zoo.train_paraformer paraformer paraformer_streaming

FunASR's own classes, front end, losses and decoding, as the config.yaml of each folder says: that of the checkpoint on
the hub at a hundredth of its size. Trained in order: the second starts from what of the first fits. Seeded and on one
thread, so the same machine writes the same bytes. Prints the character error rate on the evaluation split.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jiwer
import numpy as np
import torch
import yaml

from stages.core import params
from stages.corpora import manifest, spoken_commands
from stages.models.shared.checkpoint import importing_funasr

with importing_funasr():
    import funasr.models.paraformer.cif_predictor
    import funasr.models.paraformer.decoder
    import funasr.models.sanm.encoder
    import funasr.models.scama.encoder
    import funasr.models.specaug.specaug  # noqa: F401 - each registers its classes
    from funasr.frontends.wav_frontend import WavFrontend, WavFrontendOnline
    from funasr.models.paraformer.model import Paraformer
    from funasr.models.paraformer_streaming.model import ParaformerStreaming
    from funasr.tokenizer.char_tokenizer import CharTokenizer

ZOO = Path(__file__).parent
STEPS = {"paraformer": 4000, "paraformer_streaming": 2500}
TOKENS = ["<blank>", "<s>", "</s>", *spoken_commands.characters(), "<unk>"]
CLASSES = {"Paraformer": Paraformer, "ParaformerStreaming": ParaformerStreaming}
FRONTENDS = {"WavFrontend": WavFrontend, "WavFrontendOnline": WavFrontendOnline}
SECTIONS = ("encoder", "decoder", "predictor", "specaug")

SEEDS = (1, 2)  # of the training utterances, a process for each
UTTERANCES = 2500  # of each seed
BATCH = 16
LEARNING_RATE = 2e-3
WARMUP_STEPS = 300
LOOK_AHEAD = 5
# Frames of 60 ms before, in and after a chunk, and chunks to look back: FunASR's ONNX runtime and its documentation.
STREAMS = {
    "left context": {"chunk_size": [5, 10, LOOK_AHEAD], "encoder_chunk_look_back": 0, "decoder_chunk_look_back": 0},
    "look-back": {"chunk_size": [0, 10, LOOK_AHEAD], "encoder_chunk_look_back": 4, "decoder_chunk_look_back": 1},
}

Config = dict[str, Any]
Example = tuple[torch.Tensor, torch.Tensor]  # features (frames, 560) and token ids


def examples(seed: int, count: int, frontend_conf: Config) -> list[Example]:
    """Synthesize utterances of the training part: stacked fbanks before CMVN, in float16, and their token ids."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    frontend, tokenizer = WavFrontend(**frontend_conf), CharTokenizer(token_list=TOKENS)
    made = []
    for _ in range(count):
        samples, _, text = spoken_commands.utterance("training", rng)
        waveform = torch.from_numpy(samples).float()[None]
        features = frontend(waveform, [waveform.shape[1]])[0][0]
        made.append((features.half(), torch.tensor(tokenizer.encode(text))))
    return made


def moments(data: list[Example], bands: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shift and scale that give each mel band mean 0 and variance 1, repeated for the stacked frames."""
    stacked = data[0][0].shape[1] // bands
    frames = torch.cat([features.float().reshape(-1, bands) for features, _ in data])
    return -frames.mean(0).repeat(stacked), (1 / frames.std(0)).repeat(stacked)


def build(config: Config) -> Paraformer:
    """Build the network that config.yaml describes, with random weights."""
    parts = {key: config[key] for section in SECTIONS for key in (section, f"{section}_conf")}
    width = config["frontend_conf"]["n_mels"] * config["frontend_conf"]["lfr_m"]
    model = CLASSES[config["model"]]
    return model(**config["model_conf"], **parts, input_size=width, vocab_size=len(TOKENS))


def start_from(model: Paraformer, weights: dict[str, torch.Tensor]) -> None:
    """Take over those weights that have the name and shape of one of the model's."""
    own = model.state_dict()
    model.load_state_dict(own | {k: v for k, v in weights.items() if k in own and v.shape == own[k].shape})


def batches(
    data: Sequence[Example], steps: int, rng: np.random.Generator, size: int = BATCH
) -> Iterator[list[torch.Tensor]]:
    """Yield batches of similar lengths: padded features, their lengths, padded tokens, their lengths."""
    by_length = sorted(range(len(data)), key=lambda i: len(data[i][0]))
    groups = [by_length[start : start + size] for start in range(0, len(data), size)]
    pad = torch.nn.utils.rnn.pad_sequence
    for step in range(steps):
        if step % len(groups) == 0:
            order = rng.permutation(len(groups))
        features, tokens = zip(*(data[i] for i in groups[order[step % len(groups)]]), strict=True)
        lengths = [torch.tensor([len(x) for x in column]) for column in (features, tokens)]
        yield [pad(list(features), True), lengths[0], pad(list(tokens), True, -1), lengths[1]]


def train(model: Paraformer, data: list[Example], steps: int, seed: int) -> None:
    """Minimize FunASR's own loss with Adam; the learning rate rises linearly, then falls as a cosine to 0."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)

    def rate(step: int) -> float:
        return float(min(step / WARMUP_STEPS, 0.5 + 0.5 * np.cos(np.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    model.train()
    started = time.process_time()
    for step, batch in enumerate(batches(data, steps, np.random.default_rng(seed))):
        loss, stats, _ = model(*batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            shown = {name: round(float(stats[name]), 3) for name in ("loss_att", "acc", "loss_pre")}
            print(f"step {step} of {steps}, {time.process_time() - started:.0f} s of CPU: {shown}", flush=True)
    model.eval()


@contextmanager
def streamed(model: Paraformer, data: list[Example]) -> Iterator[list[Example]]:
    """Have training see utterances start as streams do: after `LOOK_AHEAD` empty frames, which have no position either.

    FunASR's streaming encoder starts with them in its cache and its predictor may fire on them; its training does not
    know of them.
    """
    pad = torch.nn.functional.pad
    embed = model.encoder.embed
    handles = [
        embed.register_forward_pre_hook(lambda _, inputs: inputs[0][:, LOOK_AHEAD:]),
        embed.register_forward_hook(lambda _, __, output: pad(output, (0, 0, LOOK_AHEAD, 0))),
    ]
    yield [(pad(features, (0, 0, LOOK_AHEAD, 0)), tokens) for features, tokens in data]
    for handle in handles:
        handle.remove()


def recognize(model: Paraformer, folder: Path, config: Config, **stream: Any) -> jiwer.WordOutput:
    """Recognize the evaluation split with FunASR's own `inference` and align it with the true characters."""
    frontend = FRONTENDS[config["frontend"]](cmvn_file=str(folder / "am.mvn"), **config["frontend_conf"])
    tools = {"frontend": frontend, "tokenizer": CharTokenizer(token_list=TOKENS), "device": "cpu"}
    dataset: Any = params.load().datasets["spoken_commands"]
    truths, texts = [], []
    with TemporaryDirectory() as made, torch.inference_mode():
        spoken_commands.make(dataset.seed, {"evaluation": dataset.items["evaluation"]}, Path(made))
        for recording in manifest.read(Path(made), "evaluation"):
            state = {"cache": {}, "is_final": True} if stream else {}
            results = model.inference(
                [torch.from_numpy(recording.samples())], key=[recording.id], **config | tools | state | stream
            )
            truths.append(" ".join(recording.text))
            texts.append(" ".join(results[0][0]["text"].replace(" ", "")) if results else "")
    return jiwer.process_words(truths, texts)


def report(model: Paraformer, folder: Path, config: Config) -> None:
    """Print the sizes and the character error rate in each way of decoding."""
    print(f"{folder.name}: {sum(p.numel() for p in model.parameters())} parameters")
    print(f"{folder.name}: model.pt has {(folder / 'model.pt').stat().st_size} bytes")
    ways = STREAMS if config["model"] == "ParaformerStreaming" else {"offline": {}}
    for way, stream in ways.items():
        aligned = recognize(model, folder, config, **stream)
        edits = (aligned.substitutions, aligned.deletions, aligned.insertions)
        length = aligned.hits + aligned.substitutions + aligned.deletions
        print(f"{folder.name}: {way}: CER {aligned.wer:.4f}, {edits} (S, D, I) of {length} characters")


def save(model: Paraformer, shift: torch.Tensor, scale: torch.Tensor, folder: Path) -> None:
    """Write the weights, the token list and the CMVN."""
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "tokens.json").write_text(json.dumps(TOKENS, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    write_cmvn(shift, scale, folder)


def write_cmvn(shift: torch.Tensor, scale: torch.Tensor, folder: Path) -> None:
    """Write am.mvn as a Kaldi nnet, which is how FunASR's front ends read it."""
    size = len(shift)
    lines = ["<Nnet>", f"<Splice> {size} {size}", "[ 0 ]"]
    for name, vector in (("AddShift", shift), ("Rescale", scale)):
        values = " ".join(f"{value:.6g}" for value in vector.tolist())
        lines += [f"<{name}> {size} {size}", f"<LearnRateCoef> 0 [ {values} ]"]
    (folder / "am.mvn").write_text("\n".join([*lines, "</Nnet>", ""]), encoding="utf-8")


def main() -> None:
    """Train the named models, one after the other, into their folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=STEPS)
    models = parser.parse_args().models
    torch.set_num_threads(1)
    configs = {name: yaml.safe_load((ZOO / name / "config.yaml").read_text(encoding="utf-8")) for name in models}
    frontend_conf = configs[models[0]]["frontend_conf"]
    with ProcessPoolExecutor(len(SEEDS)) as pool:
        made = pool.map(examples, SEEDS, [UTTERANCES] * len(SEEDS), [frontend_conf] * len(SEEDS))
        data = [example for part in made for example in part]
    shift, scale = moments(data, frontend_conf["n_mels"])
    data = [((features + shift) * scale, tokens) for features, tokens in data]
    weights: dict[str, torch.Tensor] = {}
    for name, config in configs.items():
        torch.manual_seed(SEEDS[0])
        model = build(config)
        start_from(model, weights)
        with streamed(model, data) if config["model"] == "ParaformerStreaming" else nullcontext(data) as seen:
            train(model, seen, STEPS[name], SEEDS[0])
        save(model, shift, scale, ZOO / name)
        report(model, ZOO / name, config)
        weights = model.state_dict()


if __name__ == "__main__":
    main()
