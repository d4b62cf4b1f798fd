"""Fewer channels in FSMN-VAD's dense layers and memories, refitted and distilled on a stream of features."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.params.prune import PruneParams
from stages.corpora.manifest import Recording
from stages.models.fsmn_vad.network import FRAME_MS, build, load_frontend
from stages.models.shared.frontend import long_enough
from stages.pruning import augmentation, criteria, recovery

if TYPE_CHECKING:
    from funasr.models.fsmn_vad_streaming.model import FsmnVADStreaming

Floats = NDArray[np.float32]

WIDTHS = ("input_affine_dim", "linear_dim", "proj_dim", "output_affine_dim")  # keys of encoder_conf that can shrink
# The first and last pair of dense layers have no nonlinearity between them and far more width than the
# rank of what passes: a block narrowed to x of its width goes with pairs narrowed to x to this power.
PAIR_POWER = 10
BATCH = 2  # crops in a step of distillation
CROP = 600  # frames: two long crops waste less on masked context than four short ones
REFIT_FRAMES = 48_000  # the recordings as they are and some variations: more costs seconds and gains nothing


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> torch.Tensor:
    """Compute features of the recordings and variations of them, one stream (frames, input_dim)."""
    audio = [r.samples() for r in recordings]
    return features(folder, [*audio, *augmentation.vary(audio, settings.variations, settings.seed)])


def features(folder: Path, recordings: Sequence[Floats]) -> torch.Tensor:
    """Compute features of recordings, float32 (samples,) in [-1, 1), as one stream (frames, input_dim)."""
    frontend = load_frontend(folder)
    streams = []
    for samples in long_enough(recordings, frontend):
        waveform = torch.from_numpy(samples)[None]
        streams.append(frontend(waveform, torch.tensor([waveform.shape[1]]), cache={}, is_final=True)[0][0])
    return torch.cat(streams)


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
        powers = {"input_affine_dim": PAIR_POWER, "output_affine_dim": PAIR_POWER}
        exact = {key: conf[key] * scale ** powers.get(key, 1) / step for key, step in steps.items()}
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
    model: FsmnVADStreaming, config: dict[str, Any], calibration: torch.Tensor, criterion: str, damping: float
) -> tuple[FsmnVADStreaming, recovery.Refit]:
    """Copy the model into one with the smaller widths of `config`, and return that and what refits it.

    The refit: what a dense layer makes of the stream is regressed on what the narrow network before it gives, layer
    after layer. The pairs of dense layers at both ends become their best approximation of that rank.

    calibration: features (frames, input_dim). criterion: one of `stages.pruning.criteria`.
    """
    stream = calibration[:REFIT_FRAMES]
    with torch.no_grad():
        inputs, outputs = recovery.record(model.encoder, stream)
        small, kept = cut_channels(model, config, stream, inputs, criterion, damping)
    wanted = {name: output[:, kept.get(name, slice(None))] for name, output in outputs.items()}
    return small, lambda: _refit(small, stream, wanted, damping)


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
    small: FsmnVADStreaming, stream: torch.Tensor, wanted: dict[str, torch.Tensor], damping: float
) -> dict[str, float]:
    """Refit every dense layer to its `wanted` outputs (frames, out); returns the relative error of each."""
    encoder = small.encoder
    errors = {}

    def fit(name: str, linears: Sequence[torch.nn.Linear], hidden: torch.Tensor) -> torch.Tensor:
        recovery.refit(linears, hidden, wanted[name], damping)
        for linear in linears:
            hidden = linear(hidden)
        errors[name] = recovery.relative_error(hidden, wanted[name])
        return hidden

    hidden = encoder.relu(fit("in_linear2.linear", [encoder.in_linear1.linear, encoder.in_linear2.linear], stream))
    for i, block in enumerate(encoder.fsmn):
        projected = fit(f"fsmn.{i}.linear.linear", [block.linear.linear], hidden)
        remembered = block.fsmn_block(projected[None], None)[0][0]
        hidden = block.relu(fit(f"fsmn.{i}.affine.linear", [block.affine.linear], remembered))
    fit("out_linear2.linear", [encoder.out_linear1.linear, encoder.out_linear2.linear], hidden)
    return errors


def distillation(small: FsmnVADStreaming, model: FsmnVADStreaming, calibration: torch.Tensor) -> recovery.Loss:
    """Return the loss of one step: the divergence of the small model's posteriors from the model's on random crops.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1. The first `context`
    frames of a crop are left out: what either gives there is of a silence that is not in the recording.

    calibration: features (frames, input_dim) of the calibration or the tuning split.

    Raises:
        UserError: the stream is shorter than one crop.
    """
    if len(calibration) < CROP:
        raise UserError(
            f"prune: found {len(calibration)} frames in a split, wanted at least {CROP} to distil on or to tune on"
        )

    def loss(generator: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(calibration) - CROP + 1, (BATCH,), generator=generator).tolist()
        inputs = torch.stack([calibration[start : start + CROP] for start in starts])
        counted = slice(context(model), None)
        with torch.no_grad():
            wanted = logits(model, inputs)[:, counted]
        return recovery.divergence(logits(small, inputs)[:, counted], wanted)

    return loss
