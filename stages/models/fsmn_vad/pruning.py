"""Fewer channels in FSMN-VAD's dense layers and memories, refitted and distilled on a stream of features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stages.models.fsmn_vad.network import FRAME_MS, build
from stages.models.fsmn_vad.stream import Stream
from stages.pruning import criteria, recovery

if TYPE_CHECKING:
    from funasr.models.fsmn_vad_streaming.model import FsmnVADStreaming

# Keys of encoder_conf that can shrink, each to x of its width to this power at a scale of x. An equal share of the
# parameters costs unequally: with one key's gone and the rest refitted, frames of the tuning split agree to 0.9975
# without 12 % (input_affine_dim at 64), to 0.985 and 0.982 without 8 % (proj_dim at 112, linear_dim at 224). The first
# and the last pair of dense layers have no nonlinearity between them and far more width than the rank of what passes;
# of what leaves the last, the detector reads one number.
POWERS = {"input_affine_dim": 10, "linear_dim": 0.1, "proj_dim": 1, "output_affine_dim": 30}
WIDTHS = tuple(POWERS)
OTHER_PDFS = 1e-5  # what errors of pdfs that the detector does not read count, against those that it reads
SILENCE_ITERATIONS = 20  # of the tuning split's frames 0.988 agree then, 0.981 before, and 0.986 after 60: overfitted
REFIT_FRAMES = 48_000  # more costs seconds and gains nothing


def context(model: FsmnVADStreaming) -> int:
    """Count the frames of the past that a frame's posteriors depend on."""
    conf = model.encoder_conf
    frames: int = conf["fsmn_layers"] * (conf["lorder"] - 1) * conf["lstride"]
    return frames


def logits(model: FsmnVADStreaming, speech: torch.Tensor) -> torch.Tensor:
    """Compute the outputs before the softmax, (batch, frames, output_dim), of features (batch, frames, input_dim)."""
    encoder = model.encoder
    hidden = encoder.fsmn(encoder.relu(encoder.in_linear2(encoder.in_linear1(speech))), None)
    outputs: torch.Tensor = encoder.out_linear2(encoder.out_linear1(hidden))
    return outputs


def widths(model: FsmnVADStreaming) -> dict[str, int]:
    """Return the layer widths that pruning changes."""
    return {key: model.encoder_conf[key] for key in WIDTHS}


def multiplications(model: FsmnVADStreaming) -> int:
    """Count multiply-accumulates for 10 s of audio: a frame uses every weight that is not a bias once."""
    weights: int = sum(p.numel() for p in model.encoder.parameters() if p.dim() > 1)
    return 10_000 // FRAME_MS * weights


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """Choose the widths, by the keys of `widths` multiples of `steps`, that remove closest to `removed`."""

    def scaled(scale: float) -> dict[str, int]:
        exact = {key: conf[key] * scale ** POWERS[key] / step for key, step in steps.items()}
        return {key: min(conf[key], max(1, round(x)) * steps[key]) for key, x in exact.items()}

    conf, count = config["encoder_conf"], counter(config)
    dense = count({})
    candidates = [scaled(scale) for scale in np.linspace(0, 1, 1001)]
    return with_widths(config, min(candidates, key=lambda new: abs(1 - count(new) / dense - removed)))


def with_widths(config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """Return the configuration with some widths, by the keys of `widths`, changed."""
    return config | {"encoder_conf": config["encoder_conf"] | new}


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """Return a function that counts the parameters of the model with other widths, by the keys of `widths`."""
    return lambda new: _parameters(config["encoder_conf"] | new)


def _parameters(conf: dict[str, Any]) -> int:
    """Count the parameters of the encoder that FunASR builds from an encoder_conf."""
    first, wide, narrow, last = (conf[key] for key in WIDTHS)
    taps = conf["lorder"] + conf["rorder"]
    block = wide * narrow + narrow * taps + (narrow + 1) * wide
    ends = (conf["input_dim"] + 1) * first + (first + 1) * wide + (wide + 1) * last + (last + 1) * conf["output_dim"]
    return int(conf["fsmn_layers"] * block + ends)


def cut(
    model: FsmnVADStreaming, config: dict[str, Any], calibration: Stream, criterion: str, damping: float
) -> tuple[FsmnVADStreaming, recovery.Refit]:
    """Copy the model into one with the smaller widths of `config`, and return that and what refits it.

    The refit: what a dense layer makes of the stream is regressed on what the narrow network before it gives, layer
    after layer. The pairs of dense layers at both ends become their best approximation of that rank.

    calibration: features (frames, input_dim). criterion: one of `stages.pruning.criteria`.
    """
    stream = calibration.frames[:REFIT_FRAMES]
    with torch.no_grad():
        inputs, outputs = recovery.record(model.encoder, stream)
        small, kept = cut_channels(model, config, stream, inputs, criterion, damping)
    wanted = {name: output[:, kept.get(name, slice(None))] for name, output in outputs.items()}
    importance = silence_importance(model, outputs["out_linear2.linear"])
    return small, lambda: _refit(small, stream, wanted, damping, importance)


def cut_channels(
    model: FsmnVADStreaming,
    config: dict[str, Any],
    stream: torch.Tensor,
    inputs: dict[str, torch.Tensor],
    criterion: str,
    damping: float,
) -> tuple[FsmnVADStreaming, dict[str, list[int]]]:
    """Copy the model without the channels that `config` has no room for; return also what each layer kept.

    torch-pruning's dependency graph (Fang et al., "DepGraph", 2023) says what goes with a channel: for a
    projection that is its memory's taps and the columns that read it.

    stream: calibration features (frames, input_dim). inputs: what of it enters each dense layer, (frames, in).
    """
    import torch_pruning as tp

    encoder = copy.deepcopy(model.encoder)
    example = torch.zeros(1, 1, model.encoder_conf["input_dim"])
    with torch.enable_grad():  # the graph is read off autograd's
        graph = tp.DependencyGraph().build_dependency(encoder, example_inputs=(example,))
    names = {module: name for name, module in encoder.named_modules()}
    layers = {name: model.encoder.get_submodule(name) for name in inputs}
    scores = criteria.taylor(lambda: logits(model, stream[None]), layers) if criterion == "taylor" else {}
    kept = {}
    for root, key in _roots(config["encoder_conf"]).items():
        layer = encoder.get_submodule(root)
        channels = range(layer.out_features)
        group = graph.get_pruning_group(layer, tp.prune_linear_out_channels, list(channels))
        reader = group[-1].dep.target.module
        kept[root] = criteria.choose(
            criterion,
            config["encoder_conf"][key],
            weights=_weights(graph, group),
            hidden=inputs[names[reader]],
            reader=reader.weight,
            taylor_scores=scores.get(names[reader]),
            damping=damping,
        )
        dropped = sorted(set(channels) - set(kept[root]))
        if dropped:
            graph.get_pruning_group(layer, tp.prune_linear_out_channels, dropped).prune()
    small = build(config)
    small.encoder.load_state_dict(encoder.state_dict())
    return small, kept


def _weights(graph: Any, group: Any) -> list[torch.Tensor]:
    """Return what goes with the channels of a torch-pruning group, each (channels, ...), without biases."""
    found = [(dep, getattr(dep.target.module, "weight", None)) for dep, _ in group]
    made = graph.is_out_channel_pruning_fn
    return [w if made(dep.handler) else w.transpose(0, 1) for dep, w in found if w is not None]


def _roots(conf: dict[str, Any]) -> dict[str, str]:
    """Name the dense layers whose outputs can shrink, and the key of their width, from the input to the output."""
    blocks: dict[str, str] = {}
    for i in range(conf["fsmn_layers"]):
        blocks |= {f"fsmn.{i}.linear.linear": "proj_dim", f"fsmn.{i}.affine.linear": "linear_dim"}
    first = {"in_linear1.linear": "input_affine_dim", "in_linear2.linear": "linear_dim"}
    return first | blocks | {"out_linear1.linear": "output_affine_dim"}


@torch.no_grad()
def _refit(
    small: FsmnVADStreaming,
    stream: torch.Tensor,
    wanted: dict[str, torch.Tensor],
    damping: float,
    importance: torch.Tensor,
) -> dict[str, float]:
    """Refit every dense layer to its `wanted` outputs (frames, out), and the last two to what the detector reads.

    importance: of the errors of the last, (out, out).

    Returns:
        The relative error of each, of all of its outputs, by its name.
    """
    encoder = small.encoder
    errors = {}

    def fit(
        name: str, linears: Sequence[torch.nn.Linear], hidden: torch.Tensor, importance: torch.Tensor | None = None
    ) -> torch.Tensor:
        recovery.refit(linears, hidden, wanted[name], damping, importance)
        for linear in linears:
            hidden = linear(hidden)
        errors[name] = recovery.relative_error(hidden, wanted[name])
        return hidden

    hidden = encoder.relu(fit("in_linear2.linear", [encoder.in_linear1.linear, encoder.in_linear2.linear], stream))
    for i, block in enumerate(encoder.fsmn):
        projected = fit(f"fsmn.{i}.linear.linear", [block.linear.linear], hidden)
        remembered = block.fsmn_block(projected[None], None)[0][0]
        hidden = block.relu(fit(f"fsmn.{i}.affine.linear", [block.affine.linear], remembered))
    first, second = last = [encoder.out_linear1.linear, encoder.out_linear2.linear]
    fit("out_linear2.linear", last, hidden, importance)
    silence = silence_logits(small, wanted["out_linear2.linear"])
    recovery.minimize(
        last, lambda: recovery.divergence(silence_logits(small, second(first(hidden))), silence), SILENCE_ITERATIONS
    )
    return errors


def distillation(small: FsmnVADStreaming, model: FsmnVADStreaming, calibration: Stream) -> recovery.Loss:
    """Return the loss of one step: how far the small model's posteriors of silence and of speech are from the model's.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1, with two classes: FunASR's
    detector reads no more of the posteriors than how much of them is silence. The first `context` frames of a crop are
    left out: what either gives there is of a silence that is not in the recording.

    Raises:
        UserError: the stream is shorter than one crop.
    """
    calibration.check()
    counted = slice(context(model), None)

    def loss(generator: torch.Generator) -> torch.Tensor:
        inputs = calibration.crops(generator)
        with torch.no_grad():
            wanted = silence_logits(model, logits(model, inputs)[:, counted])
        return recovery.divergence(silence_logits(model, logits(small, inputs)[:, counted]), wanted)

    return loss


def silence_logits(model: FsmnVADStreaming, outputs: torch.Tensor) -> torch.Tensor:
    """Reduce logits (..., pdfs) to two, of silence and of all else: (..., 2)."""
    silence = torch.zeros(outputs.shape[-1], dtype=torch.bool)
    silence[model.vad_opts.sil_pdf_ids] = True
    return torch.stack([outputs[..., silence].logsumexp(dim=-1), outputs[..., ~silence].logsumexp(dim=-1)], dim=-1)


def silence_importance(model: FsmnVADStreaming, outputs: torch.Tensor) -> torch.Tensor:
    """Compute how much errors of logits (frames, pdfs) cost what the detector reads: float64 (pdfs, pdfs).

    The Fisher information of the logits for silence against all else, with OTHER_PDFS of its largest entry for the
    rest, so that the other posteriors stay what they were where that costs nothing.
    """
    outputs = outputs.detach().requires_grad_()
    with torch.enable_grad():
        two = silence_logits(model, outputs)
        (slope,) = torch.autograd.grad((two[:, 0] - two[:, 1]).sum(), outputs)
    silent = two.detach().softmax(dim=-1).prod(dim=-1, keepdim=True)
    information = (slope * silent.sqrt()).double()
    moments = information.T @ information
    largest = moments.diagonal().max().clamp(min=torch.finfo().tiny)
    return moments / largest + OTHER_PDFS * torch.eye(len(moments), dtype=moments.dtype)
