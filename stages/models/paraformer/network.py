"""Paraformer's network: FunASR's module, and one graph from features to the log-probabilities of all tokens at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.models.paraformer import schema
from stages.models.shared import checkpoint, cif, cmvn, sanm, sherpa, tokens
from stages.models.shared.features import keep_features
from stages.models.shared.recurrent import Recurrent
from stages.models.shared.times import has_times, outputs, times

if TYPE_CHECKING:
    from funasr.frontends.wav_frontend import WavFrontend

SECTIONS = ("encoder", "decoder", "predictor")
SCHEMAS: dict[str, type[schema.Recognizer]] = {"Paraformer": schema.Paraformer, "BiCifParaformer": schema.BiCif}
FRAME_SECONDS = 0.06  # six frames of 10 ms are one of low frame rate
USUAL = 100  # frames, six seconds: what FunASR's VAD gives between two pauses
MINUTE = 1000  # frames: it cuts longer speech
CASES = {"3s": 3.0, "10s": 10.0}
C = TypeVar("C", bound=schema.Recognizer)


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint, with `vocab_size` from its tokens.json, as FunASR adds it.

    Raises:
        UserError: it is not what the schema wants, or am.mvn or tokens.json does not fit it.
    """
    return read_typed(folder, "paraformer", SCHEMAS)[0]


def read_typed(folder: Path, family: str, schemas: Mapping[str, type[C]]) -> tuple[dict[str, Any], C]:
    """Read config.yaml of any kind of Paraformer, as `read_config` gives it and as its family's schema types it.

    Raises:
        UserError: it is not what the schema of its model wants, or am.mvn or tokens.json does not fit it.
    """
    config, typed = checkpoint.read_config(folder, family, schemas)
    cmvn.check(folder, typed.frontend_conf.size)
    return config | {"vocab_size": len(tokens.read(folder, typed.vocab_size))}, typed


def build(config: dict[str, Any]) -> Any:
    """Build FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        # These register the classes that the configuration names.
        import funasr.models.bicif_paraformer.cif_predictor
        import funasr.models.paraformer.cif_predictor
        import funasr.models.paraformer.decoder
        import funasr.models.sanm.encoder  # noqa: F401
        from funasr.models.bicif_paraformer.model import BiCifParaformer
        from funasr.models.paraformer.model import Paraformer

    kind = {"Paraformer": Paraformer, "BiCifParaformer": BiCifParaformer}[config["model"]]
    model = kind(**config["model_conf"], **arguments(config)).eval()
    sanm.keep_heads(model, config)
    return model


def arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Gather from a configuration what the class of any kind of Paraformer is built from, beside `model_conf`."""
    front = schema.RecognizerFrontend.model_validate(config["frontend_conf"])
    parts = {section: config[section] for section in SECTIONS}
    parts |= {f"{section}_conf": sanm.funasr_conf(config[f"{section}_conf"]) for section in SECTIONS}
    return parts | {"input_size": front.size, "vocab_size": config["vocab_size"]}


def load(folder: Path) -> Any:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml, tokens.json or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


def load_frontend(folder: Path, config: dict[str, Any]) -> WavFrontend:
    """Load FunASR's front end with the checkpoint's CMVN. Its dither is off: two artifacts get the same features."""
    with checkpoint.importing_funasr():
        from funasr.frontends.wav_frontend import WavFrontend

    settings = config["frontend_conf"] | {"cmvn_file": str(folder / cmvn.FILE), "dither": 0.0}
    return keep_features(WavFrontend(**settings), settings)


class Recognizer(torch.nn.Module):
    """Encoder, predictor and decoder as FunASR's `inference` runs them, without its loops over the data."""

    def __init__(self, model: Any) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.encoder, self.predictor, self.decoder = model.encoder, model.predictor, model.decoder

    def forward(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute log-probabilities (batch, tokens, vocab) and the number of tokens of each recording, int32 (batch,).

        There is one position even where no recording has a token: a convolution over none fails.

        speech: float32 (batch, frames, input_size). speech_lengths: int32 (batch,).
        """
        return self._recognize(speech, speech_lengths)[:2]

    def _recognize(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute what `forward` does, and the encoder's frames (batch, frames, size)."""
        frames = sanm.mask(speech_lengths, torch.arange(speech.shape[1]))
        encoded = sanm.encode(self.encoder, speech, frames) * frames.rows  # or padding would be in the last token
        shares, token_num = cif.integrate(cif.frame_weights(self.predictor, encoded, speech_lengths))
        tokens = sanm.mask(token_num, torch.arange(shares.shape[1]))
        hidden = sanm.decode(self.decoder, shares @ encoded * tokens.rows, tokens, encoded, frames.keys)
        return torch.log_softmax(self.decoder.output_layer(hidden), dim=-1), token_num, encoded


class TimedRecognizer(Recognizer):
    """Paraformer that also gives what FunASR computes times from: BiCIF."""

    def __init__(self, model: Any) -> None:
        """Share the parts of `model`."""
        super().__init__(model)
        self.recurrent = Recurrent(model.predictor.blstm)

    def forward(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute what Recognizer does, then weights and peaks (batch, upsampled frames)."""
        logits, token_num, encoded = self._recognize(speech, speech_lengths)
        return logits, token_num, *times(self.predictor, self.recurrent, encoded, speech_lengths, token_num)


def graph_set(model: Any) -> GraphSet:
    """Describe the graph with FunASR's names, and outputs in the order in which `funasr_onnx` reads them."""
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
            **(outputs() if has_times(model) else {}),
        },
        states={},
        axes={"batch": Axis(min=1, opt=1, max=8), "feats_length": Axis(min=1, opt=USUAL, max=MINUTE)},
    )
    cases = {n: Case(sizes={"batch": 1, "feats_length": usual[n]}, seconds=seconds) for n, seconds in CASES.items()}
    return GraphSet(graphs={"model": graph}, cases=cases)


def export_modules(model: Any) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"model": (TimedRecognizer if has_times(model) else Recognizer)(model)}


def metadata(folder: Path) -> dict[str, sherpa.Metadata]:
    """Return what sherpa-onnx reads in the graph's file."""
    config, typed = read_typed(folder, "paraformer", SCHEMAS)
    return {"model": sherpa.recognizer(folder, typed.frontend_conf, config["vocab_size"])}
