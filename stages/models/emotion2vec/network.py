"""emotion2vec's network: FunASR's module, and the one graph from a waveform to embeddings and label scores."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.corpora.manifest import SAMPLE_RATE
from stages.models.emotion2vec import schema
from stages.models.shared import checkpoint, tokens

if TYPE_CHECKING:
    from funasr.models.emotion2vec.model import Emotion2vec
    from funasr.tokenizer.char_tokenizer import CharTokenizer

SCHEMAS = {"Emotion2vec": schema.Emotion2vec}
TOKENS = (tokens.FILE, tokens.PLAIN)  # the hub has the second; of a release with both, that is sherpa-onnx's


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint, with the number of labels as `vocab_size`.

    Raises:
        UserError: it is not what the schema wants, or the label list is missing or malformed.
    """
    config, typed = checkpoint.read_config(folder, "emotion2vec", SCHEMAS)
    return config | {"vocab_size": len(tokens.read(folder, typed.vocab_size, TOKENS))}


def load_tokenizer(folder: Path) -> CharTokenizer:
    """Load FunASR's tokenizer, of which emotion2vec uses the list of labels.

    Raises:
        UserError: there is no list of labels, or FunASR cannot use it.
    """
    return tokens.tokenizer(tokens.read(folder, files=TOKENS))


def build(config: dict[str, Any]) -> Emotion2vec:
    """Build FunASR's module for a configuration with random weights, in evaluation mode, without what only trains."""
    with checkpoint.importing_funasr():
        from funasr.models.emotion2vec.model import Emotion2vec

    conf = copy.deepcopy(config["model_conf"])
    conf["modalities"]["audio"]["decoder"] = None
    model = Emotion2vec(model_conf=conf, vocab_size=config["vocab_size"])
    model.modality_encoders["AUDIO"].remove_pretraining_modules()
    return model.eval()


def load(folder: Path) -> Emotion2vec:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Names are mapped as config.yaml's `scope_map` says (the hub's weights start with `d2v_model.`), and what only
    pre-training used is left out, as FunASR's loader does it.

    Raises:
        UserError: config.yaml, the label list or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


class ExportedNetwork(torch.nn.Module):
    """FunASR's network with the mean over frames and the last layer, as the exporter can follow it.

    FunASR keeps the attention's linear biases (Press et al., "Train Short, Test Long", 2022) of the longest input
    so far, and looks at the size to know if they will do; here they are computed from the number of frames.
    """

    def __init__(self, model: Emotion2vec) -> None:
        """Share the weights of `model`."""
        super().__init__()
        self.model = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
        encoder = self.model.modality_encoders["AUDIO"]
        if encoder.get_alibi_bias is not None:
            encoder.get_alibi_bias = _alibi_bias

    def forward(self, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Compute embeddings of frames (1, frames, embed_dim) and utterance (1, embed_dim), and logits (1, labels).

        source: waveform (1, samples) at 16 kHz, of zero mean and unit variance where `model_conf.normalize` is set.
        """
        frames = self.model.extract_features(source)["x"]
        utterance = frames.mean(dim=1)
        return frames, utterance, self.model.proj(utterance)


def _alibi_bias(*, batch_size: int, time_steps: int, heads: int, dtype: torch.dtype, device: Any) -> torch.Tensor:
    """Compute the biases of attention: minus the distance, times each head's slope."""
    with checkpoint.importing_funasr():
        from funasr.models.emotion2vec.base import get_alibi

    places = torch.arange(time_steps, dtype=dtype, device=device)
    distance = (places[:, None] - places[None]).abs()
    nearest = get_alibi(2, heads)[:, :1, 1:].to(device, dtype)  # minus the slopes: the biases of a distance of 1
    biases: torch.Tensor = (nearest * distance)[None].expand(batch_size, -1, -1, -1)
    return biases


def graph_set(model: Emotion2vec) -> GraphSet:
    """Describe the one graph of the family.

    Its input is what FunASR's `inference` gives its network: normalization stays in front of it, where it is exact
    for silence and does not lose precision to fp16. Batch is 1: the network is run without a padding
    mask, so that padding would be attended to and counted in the mean.
    """
    width, labels = model.cfg.embed_dim, model.proj.out_features
    return GraphSet(
        graphs={
            "model": Graph(
                file="model.onnx",
                inputs={"source": Tensor(dtype="float32", shape=[1, "samples"])},
                outputs={
                    "frame_embeddings": Tensor(dtype="float32", shape=[1, "frames", width]),
                    "embedding": Tensor(dtype="float32", shape=[1, width]),
                    "logits": Tensor(dtype="float32", shape=[1, labels]),
                },
                states={},
                axes={"samples": Axis(min=_shortest(model), opt=3 * SAMPLE_RATE, max=30 * SAMPLE_RATE)},
            )
        },
        cases={f"{s}s": Case(sizes={"samples": s * SAMPLE_RATE}, seconds=s) for s in (1, 3, 10)},
    )


def _shortest(model: Emotion2vec) -> int:
    """Count the samples of which the extractor makes one frame."""
    samples = 1
    for _, kernel, stride in reversed(model.modality_encoders["AUDIO"].feature_enc_layers):
        samples = (samples - 1) * stride + kernel
    return samples


def export_modules(model: Emotion2vec) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"model": ExportedNetwork(model)}
