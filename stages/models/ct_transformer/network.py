"""CT-Transformer's network: FunASR's module of either kind, and its one graph from token ids to logits of marks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stages.core.graphs import Axis, Case, Graph, GraphSet, Tensor
from stages.models.ct_transformer import words
from stages.models.ct_transformer.schema import Offline, Punctuator, Realtime
from stages.models.shared import checkpoint, sanm, sherpa, tokens

if TYPE_CHECKING:
    from funasr.models.ct_transformer.model import CTTransformer
    from funasr.tokenizer.char_tokenizer import CharTokenizer

SCHEMAS: dict[str, type[Punctuator]] = {"CTTransformer": Offline, "CTTransformerStreaming": Realtime}
MASKS = ("vad_masks", "sub_masks")  # of the realtime kind
LONGEST = 512  # tokens: FunASR sends 20 new ones and what is left of the last sentence, which it cuts after 200


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint, with `vocab_size` from its tokens.json, as FunASR adds it.

    Raises:
        UserError: it is not what the schema of its model wants, or tokens.json does not fit.
    """
    config, typed = checkpoint.read_config(folder, "ct_transformer", SCHEMAS)
    return config | {"vocab_size": len(tokens.read(folder, typed.vocab_size))}


def build(config: dict[str, Any]) -> CTTransformer:
    """Build FunASR's module for what `read_config` gives, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
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


def load(folder: Path) -> CTTransformer:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml, tokens.json, model.pt or the list of words is not what the family needs.
    """
    words.load_segmenter(folder)  # what is wrong with it is said when the checkpoint is pinned
    return checkpoint.load(build, read_config(folder), folder)


def load_tokenizer(folder: Path) -> CharTokenizer:
    """Load FunASR's tokenizer with the checkpoint's token list."""
    return tokens.tokenizer(tokens.read(folder))


def realtime_masks(size: int, pauses: torch.Tensor) -> dict[str, torch.Tensor]:
    """Make FunASR's masks of the realtime kind, for texts of `size` tokens with a pause each.

    pauses: the token before which each text's pause is, (batch,).

    Returns:
        1 where a token is seen and 0 elsewhere, float32 (batch or 1, 1, size, size).
    """
    with checkpoint.importing_funasr():
        from funasr.models.transformer.utils.mask import subsequent_mask, vad_mask

    seen = {"vad_masks": [vad_mask(size, pause) for pause in pauses.tolist()], "sub_masks": [subsequent_mask(size)]}
    return {name: torch.stack(masks)[:, None].float() for name, masks in seen.items()}


class ExportedOffline(torch.nn.Module):
    """CTTransformer with the names and integers of FunASR's own export."""

    def __init__(self, model: CTTransformer) -> None:
        """Share the layers of `model`."""
        super().__init__()
        self.embed, self.encoder, self.decoder = model.embed, model.encoder, model.decoder

    def forward(self, inputs: torch.Tensor, text_lengths: torch.Tensor) -> tuple[torch.Tensor]:
        """Compute logits (batch, tokens, marks) of token ids int32 (batch, tokens)."""
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
        """Compute logits (1, tokens, marks) of token ids int32 (1, tokens).

        vad_masks, sub_masks: float32 (1, 1, tokens, tokens), 1 where a token is seen.
        """
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
    """Describe the one graph of either kind, with the names, order and integers that FunASR's ONNX runtime feeds."""
    realtime, length = model.with_vad(), Axis(min=1, opt=20, max=LONGEST)
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
                axes={"tokens": length} | ({} if realtime else {"batch": Axis(min=1, opt=1, max=16)}),
            )
        },
        cases={f"{n}_tokens": Case(sizes={**sizes, "tokens": n}, seconds=None) for n in (20, 200)},
    )


def export_modules(model: CTTransformer) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"model": (ExportedRealtime if model.with_vad() else ExportedOffline)(model)}


def metadata(folder: Path) -> dict[str, sherpa.Metadata]:
    """Return what sherpa-onnx reads in the graph's file.

    That is nothing of the realtime kind, of which it has another, and of a model of words: it splits into characters.
    """
    config = read_config(folder)
    if config["model"] != "CTTransformer" or (folder / tokens.OWN_WORDS).is_file():
        return {}
    return {"model": sherpa.punctuator(folder, config["model_conf"]["punc_list"])}
