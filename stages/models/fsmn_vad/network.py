"""FSMN-VAD's network: FunASR's module, and the one streaming graph with four caches that it becomes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.models.fsmn_vad.schema import FsmnVad
from stages.models.shared import checkpoint, cmvn

if TYPE_CHECKING:
    from funasr.frontends.wav_frontend import WavFrontendOnline
    from funasr.models.fsmn_vad_streaming.model import FsmnVADStreaming

FRAME_MS = 10
CHUNK_MS = 200  # the streaming chunk that FunASR's documentation uses
SCHEMAS = {"FsmnVADStreaming": FsmnVad}


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint.

    Raises:
        UserError: it is not what the schema wants, or am.mvn does not fit its front end.
    """
    config, typed = checkpoint.read_config(folder, "fsmn_vad", SCHEMAS)
    cmvn.check(folder, typed.frontend_conf.size)
    return config


def load(folder: Path) -> FsmnVADStreaming:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


def build(config: dict[str, Any]) -> FsmnVADStreaming:
    """Build FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        import funasr.models.fsmn_vad_streaming.encoder  # noqa: F401  registers the encoder class
        from funasr.models.fsmn_vad_streaming.model import FsmnVADStreaming

    return FsmnVADStreaming(
        encoder=config["encoder"], encoder_conf=dict(config["encoder_conf"]), **config["model_conf"]
    ).eval()


def load_frontend(folder: Path) -> WavFrontendOnline:
    """Load FunASR's streaming front end with the checkpoint's CMVN."""
    with checkpoint.importing_funasr():
        from funasr.frontends.wav_frontend import WavFrontendOnline

    return WavFrontendOnline(**read_config(folder)["frontend_conf"] | {"cmvn_file": str(folder / cmvn.FILE)})


class ExportedEncoder(torch.nn.Module):
    """FSMN with its caches as named inputs and outputs, as FunASR's ONNX runtime expects them.

    FunASR's own export module takes `*args`, which the modern exporter cannot name.
    """

    def __init__(self, model: FsmnVADStreaming) -> None:
        """Share the encoder of `model`."""
        super().__init__()
        self.encoder = model.encoder

    def forward(
        self,
        speech: torch.Tensor,
        in_cache0: torch.Tensor,
        in_cache1: torch.Tensor,
        in_cache2: torch.Tensor,
        in_cache3: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Compute posteriors (1, frames, pdfs), then the caches (1, proj_dim, lorder - 1, 1) after the last frame."""
        caches = {f"cache_layer_{i}": c for i, c in enumerate((in_cache0, in_cache1, in_cache2, in_cache3))}
        posteriors = self.encoder(speech, caches)
        return (posteriors, *caches.values())


def graph_set(model: FsmnVADStreaming) -> GraphSet:
    """Describe the one graph of the family, with FunASR's names. Batch is 1: the state machine takes no more."""
    conf = model.encoder_conf
    cache = Tensor(dtype="float32", shape=[1, conf["proj_dim"], (conf["lorder"] - 1) * conf["lstride"], 1])
    layers = range(conf["fsmn_layers"])
    minute = 60_000 // FRAME_MS
    return GraphSet(
        graphs={
            "model": Graph(
                file="model.onnx",
                inputs={
                    "speech": Tensor(dtype="float32", shape=[1, "feats_length", conf["input_dim"]]),
                    **{f"in_cache{i}": cache for i in layers},
                },
                outputs={
                    "logits": Tensor(dtype="float32", shape=[1, "feats_length", conf["output_dim"]]),
                    **{f"out_cache{i}": cache for i in layers},
                },
                states={f"in_cache{i}": f"out_cache{i}" for i in layers},
                axes={"feats_length": Axis(min=1, opt=CHUNK_MS // FRAME_MS, max=minute)},
            )
        },
        cases={
            "chunk_200ms": Case(sizes={"feats_length": CHUNK_MS // FRAME_MS}, seconds=CHUNK_MS / 1000),
            "10s": Case(sizes={"feats_length": 10_000 // FRAME_MS}, seconds=10),
            "60s": Case(sizes={"feats_length": minute}, seconds=60),
        },
    )


def export_modules(model: FsmnVADStreaming) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"model": ExportedEncoder(model)}
