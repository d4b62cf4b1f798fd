"""CT-Transformer, FunASR's punctuation model: token ids in, a mark after each token out.

Chen et al., "Controllable Time-Delay Transformer for Real-Time Punctuation Prediction and Disfluency
Detection", ICASSP 2020. Two kinds, told apart by `model` in config.yaml: CTTransformer punctuates a
whole text, CTTransformerStreaming the pieces that a voice activity detector lets through. FunASR's own
splitting, sentence cache and post-processing run unchanged; only the network that gives the logits is
swapped.
"""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.core.graphs import Axis, Case, Feeds, Graph, GraphSet, Tensor
from stages.core.params.prune import PruneParams
from stages.core.parity import Artifact, Network
from stages.core.statistics import Counts, Metric
from stages.corpora.manifest import Recording
from stages.models import checkpoint as checkpoints
from stages.models import sanm
from stages.models import tokens as token_lists
from stages.models.sanm import with_widths
from stages.models.schemas.ct_transformer import Offline, Punctuator, Realtime
from stages.pruning import narrowing, recovery

if TYPE_CHECKING:
    from funasr.models.ct_transformer.model import CTTransformer
    from funasr.tokenizer.char_tokenizer import CharTokenizer

SCHEMAS: dict[str, type[Punctuator]] = {"CTTransformer": Offline, "CTTransformerStreaming": Realtime}
MASKS = ("vad_masks", "sub_masks")  # of the realtime kind
NONE = "_"  # FunASR's name for no mark
MARKS = {"comma": "，", "period": "。", "question": "？", "enumeration": "、"}


def read_config(checkpoint: Path) -> dict[str, Any]:
    """config.yaml of a checkpoint, with `vocab_size` from its tokens.json, as FunASR adds it.

    Raises:
        UserError: it is not what the schema of its model wants, tokens.json does not fit, or it splits text by words.
    """
    config, typed = checkpoints.read_config(checkpoint, "ct_transformer", SCHEMAS)
    if (checkpoint / "jieba_usr_dict").exists():
        raise UserError(
            f"{checkpoint}: jieba_usr_dict is there, so this model punctuates words; wanted one of characters"
        )
    return config | {"vocab_size": len(token_lists.read(checkpoint, typed.vocab_size))}


def build(config: dict[str, Any]) -> CTTransformer:
    """FunASR's module for a configuration of `read_config`, with random weights, in evaluation mode."""
    with checkpoints.importing_funasr():
        import funasr.models.sanm.encoder  # noqa: F401  registers the encoder class
        from funasr.models.ct_transformer.model import CTTransformer
        from funasr.models.ct_transformer_streaming.encoder import SANMVadEncoder  # noqa: F401
        from funasr.models.ct_transformer_streaming.model import CTTransformerStreaming

    kind = {"CTTransformer": CTTransformer, "CTTransformerStreaming": CTTransformerStreaming}[config["model"]]
    model: CTTransformer = kind(
        encoder=config["encoder"],
        encoder_conf=sanm.funasr_conf(config["encoder_conf"]),
        vocab_size=config["vocab_size"],
        **config["model_conf"],
    ).eval()
    sanm.keep_heads(model, config)
    return model


def load(checkpoint: Path) -> CTTransformer:
    """The checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml, tokens.json or model.pt is not what the family needs.
    """
    return checkpoints.load(build, read_config(checkpoint), checkpoint)


def load_tokenizer(checkpoint: Path) -> CharTokenizer:
    """FunASR's tokenizer with the checkpoint's token list."""
    return token_lists.tokenizer(token_lists.read(checkpoint))


def read_marks(text: str, known: Collection[str] = MARKS.values()) -> tuple[list[str], list[str]]:
    """The tokens of a punctuated text, as FunASR splits them, and the `known` mark after each, `_` for none."""
    with checkpoints.importing_funasr():
        from funasr.models.ct_transformer.utils import split_words

    tokens: list[str] = []
    marks: list[str] = []
    for piece in re.split(f"({'|'.join(map(re.escape, known))})", text):
        if piece not in known:
            words = split_words(piece)
            tokens += words
            marks += [NONE] * len(words)
        elif marks:
            marks[-1] = piece
    return tokens, marks


# Scoring

PIECE = 15  # tokens that the realtime kind is given at a time: 3 s of Mandarin at 5 syllables a second

Forward = Callable[..., tuple[torch.Tensor, None]]


@dataclass(frozen=True)
class Outcome:
    """What FunASR makes of one text. marks: after each token, `_` for none.

    The realtime kind says nothing after the last token: FunASR withholds that mark until more comes.
    """

    text: str
    marks: list[str]


def score(checkpoint: Path, artifact: Artifact, mode: str, recordings: Sequence[Recording]) -> list[Outcome]:  # noqa: ARG001  one mode
    """Take the marks off the recordings' texts and let FunASR put them back with the artifact's network.

    Raises:
        UserError: a line of the data set has no text.
    """
    torch.set_num_threads(1)  # the tensors are small, and other processes have the other cores
    punctuate = punctuator(checkpoint, artifact)
    return [punctuate(_tokens_of(recording)[0]) for recording in recordings]


def punctuator(checkpoint: Path, artifact: Artifact) -> Callable[[Sequence[str]], Outcome]:
    """FunASR's inference over the tokens of a text, with the artifact's network in the place of its own.

    The realtime kind gets `PIECE` tokens at a time, as voice activity detection cuts running speech: where
    the clock says, not where a sentence ends.
    """
    model, tokenizer = load(checkpoint), load_tokenizer(checkpoint)
    model.punc_forward = _forward(artifact[1]["model"])

    def infer(tokens: Sequence[str], cache: dict[str, Any]) -> dict[str, Any]:
        results, _ = model.inference([" ".join(tokens)], key=[""], tokenizer=tokenizer, cache=cache, device="cpu")
        found: dict[str, Any] = results[0]
        return found

    def whole(tokens: Sequence[str]) -> Outcome:
        found = infer(tokens, {})
        return Outcome(found["text"], [model.punc_list[i] for i in found["punc_array"]])

    def realtime(tokens: Sequence[str]) -> Outcome:
        if len(tokens) == 1:
            return Outcome(tokens[0], [])  # its only mark is withheld, and FunASR 1.4 fails on NumPy 2.4
        cache: dict[str, Any] = {}
        pieces = [infer(tokens[start : start + PIECE], cache) for start in range(0, len(tokens), PIECE)]
        text = "".join(found["text"] for found in pieces)
        return Outcome(text, read_marks(text, set(model.punc_list) - {NONE})[1][:-1])

    return realtime if model.with_vad() else whole


def _forward(network: Network) -> Forward:
    """FunASR's `punc_forward` around a network; where there was a pause, with FunASR's masks around it."""

    def punc_forward(
        text: torch.Tensor, text_lengths: torch.Tensor, vad_indexes: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, None]:
        feeds: Feeds = {"inputs": text.int().numpy(), "text_lengths": text_lengths.int().numpy()}
        if vad_indexes is not None:
            feeds |= {name: mask.numpy() for name, mask in _masks(text.shape[1], vad_indexes[:1]).items()}
        return torch.from_numpy(network(feeds)["logits"]), None

    return punc_forward


def _masks(size: int, pauses: torch.Tensor) -> dict[str, torch.Tensor]:
    """FunASR's masks of the realtime kind, float32 (batch or 1, 1, size, size), of texts with a pause each (batch,)."""
    with checkpoints.importing_funasr():
        from funasr.models.transformer.utils.mask import subsequent_mask, vad_mask

    seen = {"vad_masks": [vad_mask(size, pause) for pause in pauses.tolist()], "sub_masks": [subsequent_mask(size)]}
    return {name: torch.stack(masks)[:, None].float() for name, masks in seen.items()}


def _tokens_of(recording: Recording) -> tuple[list[str], list[str]]:
    tokens, marks = read_marks(recording.text)
    if not tokens:
        raise UserError(f"{recording.folder}: {recording.id} has no text, and this model punctuates text")
    return tokens, marks


# Export

LONGEST = 512  # tokens: FunASR sends 20 new ones and what is left of the last sentence, which it cuts after 200


class ExportedOffline(torch.nn.Module):
    """CTTransformer with the names and integers of FunASR's own export."""

    def __init__(self, model: CTTransformer) -> None:
        """Share the layers of `model`."""
        super().__init__()
        self.embed, self.encoder, self.decoder = model.embed, model.encoder, model.decoder

    def forward(self, inputs: torch.Tensor, text_lengths: torch.Tensor) -> tuple[torch.Tensor]:
        """Logits (batch, tokens, marks) of token ids int32 (batch, tokens)."""
        inside = sanm.mask(text_lengths, torch.arange(inputs.shape[1]))
        return (self.decoder(sanm.encode(self.encoder, self.embed(inputs), inside)),)


class ExportedRealtime(ExportedOffline):
    """CTTransformerStreaming, in which only the last block looks ahead, and across a pause only from its edge.

    FunASR's ONNX runtime passes the mask of the last block for the others too, so that these would look
    ahead as they never did in training; here they do not, whatever `sub_masks` allows.
    """

    def forward(  # type: ignore[override]
        self, inputs: torch.Tensor, text_lengths: torch.Tensor, vad_masks: torch.Tensor, sub_masks: torch.Tensor
    ) -> tuple[torch.Tensor]:
        """Logits (1, tokens, marks) of token ids int32 (1, tokens); masks (1, 1, tokens, tokens), 1 where seen."""
        encoder, positions = self.encoder, torch.arange(inputs.shape[1])
        inside = sanm.mask(text_lengths, positions)
        past = (positions[:, None] >= positions).float() * sub_masks
        layers = [*encoder.encoders0, *encoder.encoders]
        hidden = encoder.embed(self.embed(inputs) * encoder.output_size() ** 0.5)
        for layer, seen in zip(layers, [past] * (len(layers) - 1) + [vad_masks], strict=True):
            mask = sanm.Mask(inside.rows, inside.keys + sanm.BLOCKED * (1 - seen))
            hidden = hidden + sanm.self_attention(layer.self_attn, layer.norm1(hidden), mask)
            hidden = hidden + layer.feed_forward(layer.norm2(hidden))
        return (self.decoder(encoder.after_norm(hidden)),)


def graph_set(model: CTTransformer) -> GraphSet:
    """The one graph of either kind, with the names, order and integers that FunASR's ONNX runtime feeds."""
    realtime, tokens = model.with_vad(), Axis(min=1, opt=20, max=LONGEST)
    batch: int | str = 1 if realtime else "batch"  # a mask of the realtime kind is one text's
    masks = {name: Tensor(dtype="float32", shape=[1, 1, "tokens", "tokens"], fill=1.0) for name in MASKS if realtime}
    sizes: dict[str, int] = {} if realtime else {"batch": 1}
    ids = Tensor(dtype="int32", shape=[batch, "tokens"], below=model.embed.num_embeddings)
    return GraphSet(
        graphs={
            "model": Graph(
                file="model.onnx",
                inputs={
                    "inputs": ids,
                    "text_lengths": Tensor(dtype="int32", shape=[batch], length_of="tokens"),
                    **masks,
                },
                outputs={"logits": Tensor(dtype="float32", shape=[batch, "tokens", len(model.punc_list)])},
                states={},
                axes={"tokens": tokens} | ({} if realtime else {"batch": Axis(min=1, opt=1, max=16)}),
            )
        },
        cases={f"{n}_tokens": Case(sizes={**sizes, "tokens": n}, seconds=None) for n in (20, 200)},
    )


def export_modules(model: CTTransformer) -> dict[str, torch.nn.Module]:
    """The module behind each graph of `graph_set`."""
    return {"model": (ExportedRealtime if model.with_vad() else ExportedOffline)(model)}


# Accuracy

MODES = ("text",)
HEADLINE = "f1"
METRICS = {
    "f1": Metric(higher_is_better=True),
    **{f"f1_{name}": Metric(higher_is_better=True) for name in MARKS},
    "mark_agreement": Metric(higher_is_better=True),  # with the fp32 torch baseline
}


def measure(
    checkpoint: Path,  # noqa: ARG001  both kinds are measured alike
    recordings: Sequence[Recording],
    references: Sequence[Outcome],
    outcomes: Sequence[Outcome],
) -> list[Counts]:
    """Every metric of each text as (numerator, denominator).

    F1 of a mark is 2 TP / (2 TP + FP + FN) over the positions after tokens, `f1` the micro-average over the
    four marks (Che et al., "Punctuation Prediction for Unsegmented Transcript Based on Word Vector", LREC
    2016, which the IWSLT sets are scored by): one mark in the place of another is a false alarm of the one
    and a miss of the other. `mark_agreement` is the share of positions with the same mark as the baseline,
    among those where either has one: it is not flattered by the many with none.
    """
    return [_count(*triple) for triple in zip(recordings, references, outcomes, strict=True)]


def _count(recording: Recording, reference: Outcome, outcome: Outcome) -> Counts:
    said = outcome.marks
    expected = _tokens_of(recording)[1][: len(said)]  # without what the realtime kind withholds
    # A count in place of scikit-learn's, whose import takes longer than all the scoring; a test holds it to that.
    right = Counter(a for a, b in zip(expected, said, strict=True) if a == b)
    scores = {name: (2 * right[m], said.count(m) + expected.count(m)) for name, m in MARKS.items()}
    pairs = [pair for pair in zip(said, reference.marks, strict=True) if pair != (NONE, NONE)]
    return {
        "f1": (sum(top for top, _ in scores.values()), sum(bottom for _, bottom in scores.values())),
        **{f"f1_{name}": score for name, score in scores.items()},
        "mark_agreement": (sum(a == b for a, b in pairs), len(pairs)),
    }


# What `reference` keeps


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    write_json(folder / f"{mode}.json", [asdict(outcome) for outcome in outcomes])


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """What `write_outcomes` kept, in the same order."""
    return [Outcome(**outcome) for outcome in read_json(folder / f"{mode}.json")]


# Pruning

WIDTHS = {  # where config.yaml has it, and the layers that have it
    "encoder_conf.linear_units": "encoder.*.feed_forward",
    f"encoder_conf.{narrowing.HEADS}": "encoder.*.self_attn",
}
WINDOW = 48  # tokens: what FunASR sends at a time, 20 new ones and the sentence so far
BATCH = 16


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> torch.Tensor:
    """Token ids of the texts as one stream, int64 (tokens,), then `variations` times with the sentences shuffled.

    Raises:
        UserError: there are fewer tokens than one window.
    """
    tokenizer, rng = load_tokenizer(folder), np.random.default_rng(settings.seed)
    sentences = [s for r in recordings for s in re.findall(r"[^。？]+[。？]?", r.text)]
    orders = [np.arange(len(sentences)), *(rng.permutation(len(sentences)) for _ in range(settings.variations))]
    tokens = [read_marks(sentence)[0] for sentence in sentences]
    stream = torch.tensor([i for order in orders for n in order for i in tokenizer.encode(tokens[n])])
    if len(stream) < WINDOW:
        raise UserError(f"prune: found {len(stream)} tokens of calibration text, wanted at least {WINDOW}")
    return stream


def logits(model: CTTransformer, windows: torch.Tensor, pauses: torch.Tensor) -> torch.Tensor:
    """Logits (batch, tokens, marks) of token ids int64 (batch, tokens); the realtime kind has a pause in each."""
    size, network = windows.shape[1], export_modules(model)["model"]
    masks = _masks(size, pauses) if model.with_vad() else {}
    found: torch.Tensor = network(windows, torch.full((len(windows),), size), **masks)[0]
    return found


def widths(model: CTTransformer) -> dict[str, int]:
    """The layer widths that pruning changes."""
    return narrowing.widths(model, WIDTHS)


def multiplications(model: CTTransformer) -> int:
    """Multiply-accumulates for 20 tokens: every weight but the looked-up embedding is used once for each token."""
    blocks = (model.encoder, model.decoder)
    weights: int = sum(p.numel() for block in blocks for p in block.parameters() if p.dim() > 1)
    return 20 * weights


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration whose widths, multiples of `steps`, remove closest to `removed` of all parameters."""
    return with_widths(config, narrowing.narrowed(checkpoints.weightless(build, config), WIDTHS, removed, steps))


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """How many parameters the model has with other widths, by the keys of `widths`."""
    return narrowing.counter(checkpoints.weightless(build, config), WIDTHS)


def cut(
    model: CTTransformer, config: dict[str, Any], stream: torch.Tensor, criterion: str, damping: float
) -> tuple[CTTransformer, recovery.Refit]:
    """A copy of the model with the widths of `config`, and what refits it.

    stream: calibration tokens int64 (tokens,). criterion: one of `stages.pruning.criteria`.
    """
    small = checkpoints.weightless(build, config)
    windows = stream[: len(stream) // WINDOW * WINDOW].reshape(-1, WINDOW)
    pauses = torch.zeros(len(windows), dtype=torch.int64)

    def inside(_: str, hidden: torch.Tensor) -> torch.Tensor:
        return torch.ones(hidden.shape[:-1], dtype=torch.bool)

    return small, narrowing.cut(model, small, lambda m: logits(m, windows, pauses), inside, criterion, damping)


def distillation(small: CTTransformer, model: CTTransformer, stream: torch.Tensor) -> recovery.Loss:
    """The divergence of the small model's marks from the model's, on windows drawn from the calibration tokens.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1.
    """

    def loss(generator: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(stream) - WINDOW + 1, (BATCH,), generator=generator).tolist()
        windows = torch.stack([stream[start : start + WINDOW] for start in starts])
        pauses = torch.randint(WINDOW, (BATCH,), generator=generator)
        with torch.no_grad():
            wanted = logits(model, windows, pauses)
        return recovery.divergence(logits(small, windows, pauses), wanted)

    return loss
