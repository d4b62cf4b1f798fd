"""Paraformer, FunASR's offline recognizer: one graph from features to the log-probabilities of all tokens at once.

Gao, Zhang, McLoughlin & Yan, "Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive End-to-End
Speech Recognition", 2022. SeACo-Paraformer, which prefers given hotwords, is of this family and has other
graphs: `stages.models.seaco`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.graphs import Axis, Case, Feeds, Graph, GraphSet, Tensor
from stages.core.params.prune import PruneParams
from stages.core.parity import Artifact
from stages.corpora.manifest import Recording
from stages.models import asr, checkpoint, cif, cmvn, sanm, seaco, tokens
from stages.models.asr import HEADLINE, METRICS, Outcome, measure, read_outcomes, write_outcomes
from stages.models.sanm import with_widths
from stages.models.schemas import paraformer as schema
from stages.pruning import narrowing, recovery

if TYPE_CHECKING:
    from funasr.frontends.wav_frontend import WavFrontend

__all__ = ["HEADLINE", "METRICS", "measure", "read_outcomes", "with_widths", "write_outcomes"]

MODES = ("offline",)
FAMILY = "paraformer"
SECTIONS = ("encoder", "decoder", "predictor")
SCHEMAS: dict[str, type[schema.Recognizer]] = {"Paraformer": schema.Paraformer, seaco.MODEL: schema.Seaco}


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a checkpoint, with `vocab_size` from its tokens.json, as FunASR adds it.

    Raises:
        UserError: it is not what the schema of its model wants, or am.mvn or tokens.json does not fit it.
    """
    config, typed = checkpoint.read_config(folder, FAMILY, SCHEMAS)
    cmvn.check(folder, typed.frontend_conf.size)
    vocabulary = len(tokens.read(folder, typed.vocab_size))
    no_bias = typed.model_conf.NO_BIAS if isinstance(typed, schema.Seaco) else 0
    if no_bias >= vocabulary:
        where = f"{folder / checkpoint.CONFIG} model_conf.NO_BIAS"
        raise UserError(f"{where}: found {no_bias}, wanted a token's number, below {vocabulary}")
    return config | {"vocab_size": vocabulary}


def build(config: dict[str, Any]) -> Any:
    """FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        # These register the classes that the configuration names.
        import funasr.models.paraformer.cif_predictor
        import funasr.models.paraformer.decoder
        import funasr.models.sanm.encoder  # noqa: F401
        from funasr.models.paraformer.model import Paraformer

    front = schema.RecognizerFrontend.model_validate(config["frontend_conf"])
    parts = {section: config[section] for section in SECTIONS}
    parts |= {f"{section}_conf": sanm.funasr_conf(config[f"{section}_conf"]) for section in SECTIONS}
    sizes = {"input_size": front.size, "vocab_size": config["vocab_size"]}
    if config["model"] == seaco.MODEL:
        model = seaco.build(config, **parts, **sizes)
    else:
        model = Paraformer(**config["model_conf"], **parts, **sizes).eval()
    sanm.keep_heads(model, config)
    return model


def load(folder: Path) -> Any:
    """The checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml, tokens.json or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


def load_frontend(folder: Path, config: dict[str, Any]) -> WavFrontend:
    """FunASR's front end with the checkpoint's CMVN. Its dither is off: two artifacts hear the same."""
    with checkpoint.importing_funasr():
        from funasr.frontends.wav_frontend import WavFrontend

    return WavFrontend(**config["frontend_conf"] | {"cmvn_file": str(folder / cmvn.FILE), "dither": 0.0})


# Export

FRAME_SECONDS = 0.06  # six frames of 10 ms are one of low frame rate
USUAL = 100  # frames, six seconds: what FunASR's VAD gives between two pauses
MINUTE = 1000  # frames: it cuts longer speech


class Recognizer(torch.nn.Module):
    """Encoder, predictor and decoder as FunASR's `inference` runs them, without its loops over the data."""

    def __init__(self, model: Any) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.encoder, self.predictor, self.decoder = model.encoder, model.predictor, model.decoder

    def forward(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities (batch, tokens, vocab) and how many tokens each recording has, int32 (batch,).

        There is one position even where no recording has a token: a convolution over none fails.

        speech: float32 (batch, frames, input_size). speech_lengths: int32 (batch,).
        """
        frames = sanm.mask(speech_lengths, torch.arange(speech.shape[1]))
        encoded = sanm.encode(self.encoder, speech, frames)
        shares, token_num = cif.integrate(cif.frame_weights(self.predictor, encoded, speech_lengths))
        tokens = sanm.mask(token_num, torch.arange(shares.shape[1]))
        hidden = sanm.decode(self.decoder, shares @ encoded * tokens.rows, tokens, encoded, frames.keys)
        return torch.log_softmax(self.decoder.output_layer(hidden), dim=-1), token_num


def graph_set(model: Any) -> GraphSet:
    """The graph with FunASR's names, and outputs in the order in which `funasr_onnx` reads them."""
    size, usual = model.encoder.encoders0[0].in_size, {name: round(s / FRAME_SECONDS) for name, s in CASES.items()}
    graph = Graph(
        file="model.onnx",
        inputs={
            "speech": Tensor(dtype="float32", shape=["batch", "feats_length", size]),
            "speech_lengths": Tensor(dtype="int32", shape=["batch"], length_of="feats_length"),
        },
        outputs={
            "logits": Tensor(dtype="float32", shape=["batch", "token_length", model.vocab_size]),
            "token_num": Tensor(dtype="int32", shape=["batch"]),
        },
        states={},
        axes={"batch": Axis(min=1, opt=1, max=8), "feats_length": Axis(min=1, opt=USUAL, max=MINUTE)},
    )
    cases = {n: Case(sizes={"batch": 1, "feats_length": usual[n]}, seconds=seconds) for n, seconds in CASES.items()}
    graphs = GraphSet(graphs={"model": graph}, cases=cases)
    return seaco.graph_set(model, graphs) if seaco.is_seaco(model) else graphs


CASES = {"3s": 3.0, "10s": 10.0}


def export_modules(model: Any) -> dict[str, torch.nn.Module]:
    """The module behind each graph of `graph_set`."""
    return seaco.export_modules(model) if seaco.is_seaco(model) else {"model": Recognizer(model)}


# Scoring


class _Heard:
    """Takes the place of the network in FunASR's module: its parts hand on what the artifact said."""

    def __init__(self, model: Any, artifact: Artifact) -> None:
        self.run = artifact[1]["model"]
        self.outputs: Feeds = {}
        self.listed = seaco.listed(model, artifact[1]["bias_encoder"]) if seaco.is_seaco(model) else dict
        model.encode, model.calc_predictor, model.cal_decoder_with_predictor = self.encode, self.predict, self.decode
        model._seaco_decode_with_ASF = lambda *_, **__: self.decode()[0]  # noqa: SLF001
        model.calc_predictor_timestamp = self.times

    def encode(self, speech: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = {"speech": speech.numpy(), "speech_lengths": lengths.numpy().astype(np.int32)}
        self.outputs = self.run(features | self.listed())
        return speech, lengths

    def predict(self, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, torch.from_numpy(self.outputs["token_num"]).float(), None, None

    def decode(self, *_: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.from_numpy(self.outputs["logits"]), None

    def times(self, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return None, None, *(torch.from_numpy(self.outputs[name]) for name in ("us_alphas", "us_cif_peak"))

    @property
    def tokens(self) -> list[int]:
        best: list[int] = self.outputs["logits"][0, : int(self.outputs["token_num"][0])].argmax(axis=-1).tolist()
        return best


def score(folder: Path, artifact: Artifact, mode: str, recordings: Sequence[Recording]) -> list[Outcome]:
    """Run FunASR's recognizer over the recordings, one at a time, with the artifact's network in place of its own.

    mode: `offline`.
    """
    if mode not in MODES:
        raise ValueError(f"found mode {mode!r}, wanted one of {MODES}")
    hear = recognizer(folder, artifact)
    return [hear(recording.samples()) for recording in recordings]


def recognizer(folder: Path, artifact: Artifact) -> Callable[..., Outcome]:
    """FunASR's recognizer, loaded, as a function of audio float32 (samples,); as `score` runs it.

    SeACo-Paraformer's also takes words to listen for, as FunASR does: `hotword`, spaces between them.
    """
    torch.set_num_threads(1)  # the pipeline's tensors are small, and other processes have the other cores
    config, model = read_config(folder), load(folder)
    tools = {"tokenizer": asr.load_tokenizer(folder, config), "frontend": load_frontend(folder, config)}
    heard = _Heard(model, artifact)

    def hear(samples: NDArray[np.float32], hotword: str = "") -> Outcome:
        text = recognize(model, samples, hotword=hotword, **tools)
        return Outcome(heard.tokens, text)

    return hear


def recognize(model: Any, samples: NDArray[np.float32], **tools: Any) -> str:
    """FunASR's text of a recording; none where it finds no token."""
    with torch.inference_mode():
        found = model.inference([torch.from_numpy(samples)], key=[""], device="cpu", **tools)
    results = found[0] if found else []
    text: str = results[0]["text"] if results else ""
    return text


# Pruning

WIDTHS = {  # where config.yaml has it, and the layers that have it
    "encoder_conf.linear_units": "encoder.*.feed_forward",
    "decoder_conf.linear_units": "decoder.*.feed_forward",
    f"encoder_conf.{narrowing.HEADS}": "encoder.*.self_attn",
    f"decoder_conf.{narrowing.HEADS}": "decoder.*.src_attn",
}
REFIT_FRAMES = 6000  # three for each channel of the widest layer that is left; all dense outputs of them are held
BATCH = 4  # recordings in a step of distillation
T = TypeVar("T")
B = TypeVar("B")
TOKENS_10S = 45  # Mandarin is spoken at about that many characters


@dataclass(frozen=True)
class Batch:
    """Padded features (batch, frames, input_size), their lengths (batch,) and the mask of what is not padding."""

    speech: torch.Tensor
    lengths: torch.Tensor
    inside: sanm.Mask


@dataclass(frozen=True)
class Positions:
    """Where tokens fire: their mask, the shares of frames in them, and what is added to their scores of the frames."""

    tokens: sanm.Mask
    shares: torch.Tensor
    keys: torch.Tensor


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> list[torch.Tensor]:
    """Features (frames, input_size) of each recording, then of `settings.variations` variations of each."""
    frontend = load_frontend(folder, read_config(folder))
    audio = [recording.samples() for recording in recordings]
    audio += recovery.vary(audio, settings.variations, settings.seed)
    return [frontend(torch.from_numpy(samples)[None], [len(samples)])[0][0] for samples in audio]


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration whose widths, multiples of `steps`, remove closest to `removed` of all parameters."""
    return with_widths(config, narrowing.narrowed(checkpoint.weightless(build, config), WIDTHS, removed, steps))


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """How many parameters the model has with other widths, by the keys of `widths`."""
    return narrowing.counter(checkpoint.weightless(build, config), WIDTHS)


def cut(
    model: Any, config: dict[str, Any], features: Sequence[torch.Tensor], criterion: str, damping: float
) -> tuple[Any, recovery.Refit]:
    """A copy of the model with the widths of `config`, and what refits it.

    features: as `calibration` gives them; the first REFIT_FRAMES are used. criterion: one of `stages.pruning.criteria`.
    """
    ends = np.cumsum([len(f) for f in features])
    batch = _batch(features[: max(1, int(np.searchsorted(ends, REFIT_FRAMES, side="right")))])
    small = checkpoint.weightless(build, config)
    with torch.no_grad():
        at = _fire(batch, _hear(model, batch)[1])

    def inside(name: str, _: torch.Tensor) -> torch.Tensor:
        return (batch.inside if name.startswith("encoder.") else at.tokens).rows[:, :, 0] > 0

    return small, narrowing.cut(model, small, lambda m: say(m, _hear(m, batch)[0], at), inside, criterion, damping)


def _batch(features: Sequence[torch.Tensor]) -> Batch:
    speech = torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True)
    lengths = torch.tensor([len(f) for f in features], dtype=torch.int32)
    return Batch(speech, lengths, sanm.mask(lengths, torch.arange(speech.shape[1])))


def _hear(model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder: frames (batch, frames, size), and their weights as CIF integrates them."""
    encoded = sanm.encode(model.encoder, batch.speech, batch.inside)
    return encoded, cif.frame_weights(model.predictor, encoded, batch.lengths)


def _fire(batch: Batch, weights: torch.Tensor) -> Positions:
    shares, token_num = cif.integrate(weights)
    tokens = sanm.mask(token_num.clamp(min=1), torch.arange(shares.shape[1]))
    return Positions(tokens, shares, batch.inside.keys)


def say(model: Any, encoded: torch.Tensor, at: Positions) -> torch.Tensor:
    """Logits (tokens of all recordings, vocabulary) of frames (recordings, frames, size)."""
    hidden = sanm.decode(model.decoder, at.shares @ encoded * at.tokens.rows, at.tokens, encoded, at.keys)
    logits: torch.Tensor = model.decoder.output_layer(hidden[at.tokens.rows[:, :, 0] > 0])
    return logits


def distillation(small: Any, model: Any, features: Sequence[torch.Tensor]) -> recovery.Loss:
    """The loss of one step: what the small model says of a few recordings, against the dense one."""
    return distillation_at_tokens(small, model, features, _batch, _hear, _fire)


def distillation_at_tokens(
    small: Any,
    model: Any,
    given: Sequence[T],
    together: Callable[[Sequence[T]], B],
    hear: Callable[[Any, B], tuple[torch.Tensor, torch.Tensor]],
    fire: Callable[[B, torch.Tensor], Positions],
) -> recovery.Loss:
    """The loss of one step, with tokens where the dense model has them.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, with the dense model's
    shares of frames in tokens for both, so that their tokens line up, as Paraformer itself is trained with the
    transcript's number of them (section 3.3 of its paper). The small model's own weights of the frames are held to the
    dense model's: their L1 distance for a token bounds the error of that paper's quantity loss.

    given: the recordings. together: makes a batch of some. hear: frames and their weights. fire: tokens of weights.
    """

    def step(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(given), (BATCH,), generator=generator).tolist()
        batch = together([given[i] for i in chosen])
        with torch.no_grad():
            encoded, wanted_weights = hear(model, batch)
            at = fire(batch, wanted_weights)
            wanted = say(model, encoded, at)
        encoded, weights = hear(small, batch)
        found = say(small, encoded, at)
        quantity: torch.Tensor = (weights - wanted_weights).abs().sum() / len(found)
        return recovery.divergence(found, wanted) + quantity

    return step


def widths(model: Any) -> dict[str, int]:
    """The layer widths that pruning changes."""
    return narrowing.widths(model, WIDTHS)


def multiplications(model: Any) -> int:
    """Multiply-accumulates of the weights for 10 s: one for each frame, or for each token in the decoder."""
    frames = round(10 / FRAME_SECONDS)
    parts = tuple(f"{section}." for section in SECTIONS)
    used = {n: p for n, p in model.named_parameters() if p.dim() > 1 and n.startswith(parts)}
    per_token = {n for n in used if n.startswith("decoder.") and "linear_k_v" not in n}
    read = {n: p.numel() for n, p in used.items() if not n.startswith("decoder.embed")}
    return sum(size * (TOKENS_10S if n in per_token else frames) for n, size in read.items())
