"""SeACo-Paraformer's graphs: a bias encoder for hotwords, and a recognizer that prefers them and gives times.

Shi et al., "SeACo-Paraformer: A Non-Autoregressive ASR System with Flexible and Effective Hotword Customization
Ability", 2024. What `funasr_onnx` (SeacoParaformer) feeds and reads: `model_eb.onnx` turns hotwords into embeddings,
of which the runtime takes each word's last; `model.onnx` has them as an extra input, and two outputs for times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from stages.core.errors import UserError
from stages.core.graphs import Axis, Graph, GraphSet, Tensor
from stages.models import paraformer
from stages.models.paraformer.network import arguments, read_typed
from stages.models.seaco_paraformer.schema import Seaco
from stages.models.shared import checkpoint, cif, sanm
from stages.models.shared.features import keep
from stages.models.shared.recurrent import Recurrent
from stages.models.shared.times import times

SCHEMAS = {"SeacoParaformer": Seaco}
HOTWORD_TOKENS = 10  # the runtime pads to that
MOST_HOTWORDS = 50  # FunASR's `nfilter`: of more, those that the decoder attends to most
SCORING_LAYER = 5  # whose attention says so


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml of a checkpoint, with `vocab_size` from its tokens.json, as FunASR adds it.

    Raises:
        UserError: it is not what the schema wants, or am.mvn or tokens.json does not fit it.
    """
    config, typed = read_typed(folder, "seaco_paraformer", SCHEMAS)
    if config["vocab_size"] <= typed.model_conf.NO_BIAS:
        where = f"{folder / checkpoint.CONFIG} model_conf.NO_BIAS"
        wanted = f"wanted a token's number, below {config['vocab_size']}"
        raise UserError(f"{where}: found {typed.model_conf.NO_BIAS}, {wanted}")
    return config


def build(config: dict[str, Any]) -> Any:
    """Build FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        # These register the classes that the configuration names.
        import funasr.models.bicif_paraformer.cif_predictor
        import funasr.models.paraformer.decoder
        import funasr.models.sanm.encoder  # noqa: F401
        from funasr.models.seaco_paraformer.model import SeacoParaformer

    own = {key: config[key] for key in ("seaco_decoder", "seaco_decoder_conf")}
    model = SeacoParaformer(**config["model_conf"], **arguments(config), **own).eval()
    sanm.keep_heads(model, config)
    return model


def load(folder: Path) -> Any:
    """Load the checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml, tokens.json or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


class BiasEncoder(torch.nn.Module):
    """Hotwords to embeddings."""

    def __init__(self, model: Any) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.embed, self.bias_encoder = model.decoder.embed, Recurrent(model.bias_encoder)

    def forward(self, hotword: torch.Tensor) -> tuple[torch.Tensor]:
        """Embed hotwords, as they are after each token (HOTWORD_TOKENS, words, inner_dim).

        hotword: padded ids, int32 (words, HOTWORD_TOKENS).
        """
        return (self.bias_encoder(self.embed(hotword)).transpose(0, 1),)


class HotwordRecognizer(torch.nn.Module):
    """Paraformer whose tokens a second decoder replaces where it finds a hotword."""

    def __init__(self, model: Any) -> None:
        """Share the parts of `model`."""
        super().__init__()
        self.encoder, self.predictor, self.decoder = model.encoder, model.predictor, model.decoder
        self.seaco_decoder, self.hotword_output_layer = model.seaco_decoder, model.hotword_output_layer
        self.recurrent, self.no_bias = Recurrent(model.predictor.blstm), model.NO_BIAS

    def forward(
        self, speech: torch.Tensor, speech_lengths: torch.Tensor, bias_embed: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Compute log-probabilities (batch, tokens, vocab), token counts (batch,), and weights and peaks for times.

        bias_embed: (batch, words, inner_dim), the last of them of the token `<s>`, which stands for none.

        Returns:
            In that order; weights and peaks are (batch, upsampled frames).
        """
        token_num, embeds, hidden, encoded, *mask = keep(self._recognize, id(self), speech, speech_lengths)
        tokens = sanm.Mask(*mask)
        keys = word_keys(self.seaco_decoder, hidden, tokens, bias_embed)
        biased = self.hotword_output_layer(self._attended(embeds, hidden, tokens, bias_embed, keys))
        plain = self.decoder.output_layer(hidden)
        finds_none = biased.argmax(dim=-1, keepdim=True) == self.no_bias
        logits = torch.where(finds_none, plain.log_softmax(dim=-1), biased.log_softmax(dim=-1))
        return logits, token_num, *keep(self._locate, (id(self), "times"), encoded, speech_lengths, token_num)

    def _recognize(self, speech: torch.Tensor, speech_lengths: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute what hotwords have no say in: token counts, embeddings, decoded and encoded, mask of the tokens."""
        frames = sanm.mask(speech_lengths, torch.arange(speech.shape[1]))
        encoded = sanm.encode(self.encoder, speech, frames) * frames.rows  # or padding would be in the last token
        shares, token_num = cif.integrate(cif.frame_weights(self.predictor, encoded, speech_lengths))
        tokens = sanm.mask(token_num, torch.arange(shares.shape[1]))
        embeds = shares @ encoded * tokens.rows
        hidden = sanm.decode(self.decoder, embeds, tokens, encoded, frames.keys)
        return token_num, embeds, hidden, encoded, tokens.rows, tokens.keys

    def _locate(
        self, encoded: torch.Tensor, lengths: torch.Tensor, token_num: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        return tuple(times(self.predictor, self.recurrent, encoded, lengths, token_num))

    def _attended(
        self, embeds: torch.Tensor, hidden: torch.Tensor, tokens: sanm.Mask, words: torch.Tensor, keys: torch.Tensor
    ) -> torch.Tensor:
        """Add up what acoustic embeddings and decoder attend to of the words; both go through as one batch."""
        both = sanm.Mask(*(torch.cat([part, part]) for part in (tokens.rows, tokens.keys)))
        words, keys = torch.cat([words, words]), torch.cat([keys, keys])
        attended = sanm.decode(self.seaco_decoder, torch.cat([embeds, hidden]), both, words, keys)
        return attended.reshape(2, *hidden.shape).sum(dim=0)


def word_keys(decoder: Any, hidden: torch.Tensor, tokens: sanm.Mask, words: torch.Tensor) -> torch.Tensor:
    """Compute what is added to the scores of attention to hotwords (batch, 1, 1, words), of which some are kept.

    Of many, FunASR keeps those with most attention in layer SCORING_LAYER, and the last, which it may so take twice: a
    key that stands twice has log 2 added. FunASR lets the first recording of a batch choose for all; here each does.
    """
    for layer in decoder.decoders[:SCORING_LAYER]:
        hidden = sanm.decode_block(layer, hidden, tokens, words, None)
    layer = decoder.decoders[SCORING_LAYER]
    hidden = hidden + sanm.fsmn(layer.self_attn, layer.norm2(layer.feed_forward(layer.norm1(hidden))), tokens)
    _, attention = sanm.cross_attention(layer.src_attn, layer.norm3(hidden), words, None)
    scores = (attention * tokens.rows[:, None]).sum(dim=(1, 2))
    padded = torch.nn.functional.pad(scores, (0, MOST_HOTWORDS), value=-1.0)
    kept = scores >= padded.topk(MOST_HOTWORDS).values[:, -1:]
    place = torch.arange(words.shape[1])
    again = (place == words.shape[1] - 1) & (place >= MOST_HOTWORDS)
    times_kept = kept.float() + again.float()
    return torch.where(times_kept > 0, times_kept.clamp(min=1).log(), sanm.BLOCKED)[:, None, None]


def graph_set(model: Any) -> GraphSet:
    """Describe the two graphs, the recognizer's as Paraformer's with one more input."""
    plain = paraformer.network.graph_set(model)
    recognizer, words, size = plain.graphs["model"], Axis(min=1, opt=20, max=1000), model.inner_dim
    bias = {"bias_embed": Tensor(dtype="float32", shape=["batch", "num_hotwords", size])}
    hotword = Tensor(dtype="int32", shape=["num_hotwords", HOTWORD_TOKENS], below=model.vocab_size)
    encoder = Graph(
        file="model_eb.onnx",
        inputs={"hotword": hotword},
        outputs={"hw_embed": Tensor(dtype="float32", shape=[HOTWORD_TOKENS, "num_hotwords", size])},
        states={},
        axes={"num_hotwords": words},
    )
    axes = recognizer.axes | {"num_hotwords": words}
    cases = {n: c.model_copy(update={"sizes": c.sizes | {"num_hotwords": 2}}) for n, c in plain.cases.items()}
    recognizer = recognizer.model_copy(update={"inputs": recognizer.inputs | bias, "axes": axes})
    return GraphSet(graphs={"model": recognizer, "bias_encoder": encoder}, cases=cases)


def export_modules(model: Any) -> dict[str, torch.nn.Module]:
    """Return the module behind each graph of `graph_set`."""
    return {"model": HotwordRecognizer(model), "bias_encoder": BiasEncoder(model)}
