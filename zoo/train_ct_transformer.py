"""Trains the miniatures of CT-Transformer: `python -m zoo.train_ct_transformer zoo/ct_transformer`, or `_realtime`.

FunASR's own classes at about 1/600 of the size, with FunASR's own forward() and loss, on text that
stages/corpora/punctuated_text.py derives for training only. The folder's name says which kind. The
windows begin and end where those of FunASR's inference do: after a sentence's end, and anywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from stages.corpora import punctuated_text
from stages.corpora.manifest import Recording
from stages.models import ct_transformer
from stages.models.accuracy import MARKS
from stages.models.ct_transformer.metrics import NONE
from stages.models.shared.checkpoint import torch_networks

SEED = 20
EVALUATION_SEED = 22  # as datasets.punctuated_text in params.yaml has it
PARAGRAPHS = 8000
RAREST = 40  # a token seen fewer times in all the paragraphs is left to <unk>
TOKENS = 1536  # of a batch
USUAL, LONGEST = 48, 256  # tokens of a window at most; every tenth batch has long ones, as of a sentence without end
WIDTH = 32
ENCODER = {
    "input_size": WIDTH,
    "output_size": WIDTH,
    "attention_heads": 4,
    "dropout_rate": 0.1,
    "positional_dropout_rate": 0.1,
    "attention_dropout_rate": 0.0,
    "input_layer": "pe",
    "pos_enc_class": "SinusoidalPositionEncoder",
    "normalize_before": True,
    "kernel_size": 11,
    "selfattention_layer_type": "sanm",
    "padding_idx": 0,
}
# As in the hub's two checkpoints: four blocks that see both ways, or three whose memory sees only the past.
KINDS: dict[str, dict[str, Any]] = {
    "ct_transformer": {
        "model": "CTTransformer",
        "encoder": "SANMEncoder",
        "encoder_conf": ENCODER | {"linear_units": 320, "num_blocks": 4, "sanm_shfit": 0},
    },
    "ct_transformer_realtime": {
        "model": "CTTransformerStreaming",
        "encoder": "SANMVadEncoder",
        "encoder_conf": ENCODER | {"linear_units": 320, "num_blocks": 3, "sanm_shfit": 5},
    },
}
MODEL_CONF: dict[str, Any] = {
    "ignore_id": 0,
    "embed_unit": WIDTH,
    "att_unit": WIDTH,
    "dropout_rate": 0.1,
    "punc_list": ["<unk>", NONE, *MARKS.values()],
    "punc_weight": [1.0] * 6,
    "sentence_end_id": 3,
}
CONFIGURATION = {
    "framework": "pytorch",
    "task": "punctuation",
    "model": {"type": "funasr"},
    "pipeline": {"type": "funasr-pipeline"},
    "file_path_metas": {
        "init_param": "model.pt",
        "config": "config.yaml",
        "tokenizer_conf": {"token_list": "tokens.json"},
    },
}


def main(argv: list[str]) -> None:
    """Train one miniature, write its checkpoint into the folder given and print its F1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2500, help="0 only prints the F1 of the checkpoint that is there")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.steps:
        make(args.folder, args.steps)
    report(args.folder)


def make(folder: Path, steps: int) -> None:
    """Train the kind that the folder is named after, and write it."""
    torch.manual_seed(SEED)
    texts = [ct_transformer.read_marks(t) for t in punctuated_text.paragraphs("training", SEED, PARAGRAPHS)]
    vocabulary = tokens_of(texts)
    config = KINDS[folder.name] | {"model_conf": MODEL_CONF, "tokenizer": "CharTokenizer"}
    config |= {"tokenizer_conf": {"unk_symbol": "<unk>"}}
    model = ct_transformer.build(config | {"vocab_size": len(vocabulary)})
    train(model, [encode(text, vocabulary) for text in texts], steps)
    write(folder, model, config, vocabulary)


def tokens_of(texts: list[tuple[list[str], list[str]]]) -> list[str]:
    """Return the vocabulary, `<unk>` last: FunASR's ONNX runtime takes the last token for it."""
    counts = Counter(token for tokens, _ in texts for token in tokens)
    return ["<blank>", *sorted(token for token, count in counts.items() if count >= RAREST), "<unk>"]


def encode(text: tuple[list[str], list[str]], vocabulary: list[str]) -> np.ndarray:
    """Encode a paragraph as int64 (2, tokens): token ids and mark ids."""
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokens, marks = text
    return np.array([[ids.get(t, len(ids) - 1) for t in tokens], [MODEL_CONF["punc_list"].index(m) for m in marks]])


def train(model: torch.nn.Module, paragraphs: list[np.ndarray], steps: int) -> None:
    """Train with AdamW and one cycle of the learning rate (Smith & Topin, "Super-convergence", 2018)."""
    model.train()
    model.punc_weight = torch.tensor(MODEL_CONF["punc_weight"])  # FunASR's loss wants a tensor, its config a list
    rng = np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        longest = LONGEST if step % 10 == 0 else USUAL
        batch = [window(paragraphs[i], longest, rng) for i in rng.integers(len(paragraphs), size=TOKENS // longest)]
        loss, stats, _ = model(**collate(batch, rng))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps - 1:
            print(f"step {step} loss {float(stats['loss']):.4f}", flush=True)
    model.eval()


def window(paragraph: np.ndarray, longest: int, rng: np.random.Generator) -> np.ndarray:
    """Cut a paragraph from a sentence's start to anywhere; the mark of the last token there is set to be ignored."""
    ends = np.flatnonzero((paragraph[1] == 3) | (paragraph[1] == 4))[:-1] + 1
    start = rng.choice([0, *ends])
    stop = min(paragraph.shape[1], start + int(rng.integers(8, longest + 1)))
    piece = paragraph[:, start:stop].copy()
    if stop < paragraph.shape[1]:
        piece[1, -1] = MODEL_CONF["ignore_id"]
    return piece


def collate(windows: list[np.ndarray], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Pad windows into the batch that FunASR's forward() takes; the realtime kind gets a pause at a random place."""
    lengths = torch.tensor([w.shape[1] for w in windows])
    padded = np.zeros((2, len(windows), int(lengths.max())), np.int64)
    for row, w in enumerate(windows):
        padded[:, row, : w.shape[1]] = w
    text, punc = torch.from_numpy(padded)
    pauses = torch.from_numpy(rng.integers(0, lengths.numpy()))
    return {"text": text, "punc": punc, "text_lengths": lengths, "punc_lengths": lengths, "vad_indexes": pauses}


def write(folder: Path, model: torch.nn.Module, config: dict[str, Any], vocabulary: list[str]) -> None:
    """Write the checkpoint with the files that a repository on the hub has."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0), encoding="utf-8")
    (folder / "configuration.json").write_text(json.dumps(CONFIGURATION, indent=2) + "\n", encoding="utf-8")


def report(folder: Path) -> None:
    """Print F1 on 120 paragraphs of the evaluation split, by FunASR's own inference."""
    model = ct_transformer.load(folder)
    graph_set = ct_transformer.graph_set(model)
    artifact = graph_set, torch_networks(graph_set, ct_transformer.export_modules(model))
    texts = punctuated_text.paragraphs("evaluation", EVALUATION_SEED, 120)
    recordings = [Recording(folder=folder, id=str(number), text=text) for number, text in enumerate(texts)]
    outcomes = ct_transformer.score(folder, artifact, "text", recordings)
    counts = ct_transformer.measure(folder, recordings, outcomes, outcomes)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    for name in ("f1", *(f"f1_{mark}" for mark in MARKS)):
        print(f"{name} {sum(c[name][0] for c in counts) / sum(c[name][1] for c in counts):.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
