"""FSMN-VAD, FunASR's voice activity detector: one streaming graph with four caches.

Zhang et al., "Deep-FSMN for Large Vocabulary Continuous Speech Recognition", 2018. FunASR's own
front end (80 fbanks, 5 frames stacked, CMVN) and state machine run unchanged; only the network that
gives the posteriors is swapped, so a difference between two artifacts is the artifacts'.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.core.graphs import Axis, Case, Feeds, Graph, GraphSet, Tensor
from stages.core.params.prune import PruneParams
from stages.core.parity import Artifact, Network
from stages.core.statistics import Counts, Metric
from stages.corpora.manifest import SAMPLE_RATE, Recording
from stages.models import checkpoint, cmvn
from stages.models.schemas.fsmn_vad import FsmnVad
from stages.pruning import criteria, recovery

if TYPE_CHECKING:
    from funasr.frontends.wav_frontend import WavFrontendOnline
    from funasr.models.fsmn_vad_streaming.model import FsmnVADStreaming

FRAME_MS = 10
CHUNK_MS = 200  # the streaming chunk that FunASR's documentation uses
OFFLINE_CHUNK_MS = 60_000  # FunASR's default: longer files are cut, with the caches carried over
SCHEMAS = {"FsmnVADStreaming": FsmnVad}

Floats = NDArray[np.float32]
Events = list[list[int]]
Listen = Callable[[Floats], Iterator[tuple[int, Events]]]
"""Of audio float32 (samples,), piece by piece: the milliseconds heard so far, and FunASR's events then.

An event is [start, end] in milliseconds, [start, -1] when speech was noticed, or [-1, end] when its end was.
"""


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a checkpoint.

    Raises:
        UserError: it is not what the schema wants, or am.mvn does not fit its front end.
    """
    config, typed = checkpoint.read_config(folder, "fsmn_vad", SCHEMAS)
    cmvn.check(folder, typed.frontend_conf.size)
    return config


def load(folder: Path) -> FsmnVADStreaming:
    """The checkpoint as FunASR's own module, in evaluation mode.

    Raises:
        UserError: config.yaml or model.pt is not what the family needs.
    """
    return checkpoint.load(build, read_config(folder), folder)


def build(config: dict[str, Any]) -> FsmnVADStreaming:
    """FunASR's module for a configuration, with random weights, in evaluation mode."""
    with checkpoint.importing_funasr():
        import funasr.models.fsmn_vad_streaming.encoder  # noqa: F401  registers the encoder class
        from funasr.models.fsmn_vad_streaming.model import FsmnVADStreaming

    return FsmnVADStreaming(
        encoder=config["encoder"], encoder_conf=dict(config["encoder_conf"]), **config["model_conf"]
    ).eval()


def load_frontend(folder: Path) -> WavFrontendOnline:
    """FunASR's streaming front end with the checkpoint's CMVN."""
    with checkpoint.importing_funasr():
        from funasr.frontends.wav_frontend import WavFrontendOnline

    return WavFrontendOnline(**read_config(folder)["frontend_conf"] | {"cmvn_file": str(folder / cmvn.FILE)})


# Scoring


@dataclass(frozen=True)
class Outcome:
    """What the detector said of one recording, in one mode.

    speech: probability of speech for each 10 ms frame, float32 (frames,).
    segments: [start, end] in milliseconds.
    """

    speech: Floats
    segments: list[list[int]]


class _Encoder(torch.nn.Module):
    """Takes the place of FunASR's encoder: runs the network and keeps the posteriors."""

    def __init__(self, network: Network, graph: Graph) -> None:
        super().__init__()
        self.network, self.graph = network, graph
        self.speech: list[Floats] = []

    def forward(self, feats: torch.Tensor, cache: dict[str, Any]) -> torch.Tensor:
        feeds: Feeds = {"speech": feats.numpy()}
        for name, output in self.graph.states.items():
            shape = [d for d in self.graph.inputs[name].shape if isinstance(d, int)]
            feeds[name] = cache.get(output, np.zeros(shape, np.float32))
        outputs = self.network(feeds)
        cache.update({name: outputs[name] for name in self.graph.states.values()})
        posteriors = outputs["logits"]
        self.speech.append(1 - posteriors[0, :, 0].astype(np.float32))
        return torch.from_numpy(posteriors)


def score(folder: Path, artifact: Artifact, mode: str, recordings: Sequence[Recording]) -> list[Outcome]:
    """Run FunASR's detector over the recordings with the artifact's network in the place of its encoder.

    mode: `offline` feeds a whole file, `streaming` 200 ms at a time. The end-of-speech silence is
    the checkpoint's own `max_end_silence_time`: without an explicit value FunASR 1.4 varies it.
    """
    detect = detector(folder, artifact, mode)
    return [detect(recording.samples()) for recording in recordings]


def detector(folder: Path, artifact: Artifact, mode: str) -> Callable[[Floats], Outcome]:
    """FunASR's detector, loaded, as a function of audio float32 (samples,); as `score` runs it."""
    model, listen = _listener(folder, artifact, mode)

    def detect(samples: Floats) -> Outcome:
        segments = joined(event for _, events in listen(samples) for event in events)
        return Outcome(np.concatenate(model.encoder.speech), segments)

    return detect


def listener(folder: Path, artifact: Artifact) -> Listen:
    """FunASR's detector, loaded, for audio that arrives 200 ms at a time."""
    return _listener(folder, artifact, "streaming")[1]


def _listener(folder: Path, artifact: Artifact, mode: str) -> tuple[FsmnVADStreaming, Listen]:
    torch.set_num_threads(1)  # the pipeline's tensors are small, and other processes have the other cores
    model, frontend = load(folder), load_frontend(folder)
    graph_set, networks = artifact

    def listen(samples: Floats) -> Iterator[tuple[int, Events]]:
        """FunASR's own inference loop."""
        model.encoder = _Encoder(networks["model"], graph_set.graphs["model"])
        step = len(samples) if mode == "offline" else CHUNK_MS * SAMPLE_RATE // 1000
        cache: dict[str, Any] = {}
        for end in range(step, len(samples) + step, step):
            results, _ = model.inference(
                [torch.from_numpy(samples[end - step : end])],
                key=[""],
                frontend=frontend,
                cache=cache,
                is_final=end >= len(samples),
                chunk_size=OFFLINE_CHUNK_MS if mode == "offline" else CHUNK_MS,
                device="cpu",
                max_end_silence_time=model.vad_opts.max_end_silence_time,
            )
            yield 1000 * min(end, len(samples)) // SAMPLE_RATE, results[0]["value"]

    return model, listen


def joined(events: Iterable[Sequence[int]]) -> list[list[int]]:
    """Segments [start, end] of a detector's events, among which [start, -1] and the [-1, end] after it make one."""
    segments: list[list[int]] = []
    for begin, end in events:
        if begin >= 0:
            segments.append([begin, end])
        elif segments:
            segments[-1][1] = end
    return [[begin, end] for begin, end in segments if end > begin]


# Export


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
        """Posteriors (1, frames, pdfs), then the caches (1, proj_dim, lorder - 1, 1) after the last frame."""
        caches = {f"cache_layer_{i}": c for i, c in enumerate((in_cache0, in_cache1, in_cache2, in_cache3))}
        posteriors = self.encoder(speech, caches)
        return (posteriors, *caches.values())


def graph_set(model: FsmnVADStreaming) -> GraphSet:
    """The one graph of the family, with FunASR's names. Batch is 1: the state machine takes no more."""
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
    """The module behind each graph of `graph_set`."""
    return {"model": ExportedEncoder(model)}


# Accuracy

MODES = ("offline", "streaming")
HEADLINE = "frame_agreement"
SEGMENT_TOLERANCES_MS = (50, 100, 200)
METRICS = {
    # against the fp32 torch baseline
    "frame_agreement": Metric(higher_is_better=True),
    "posterior_mean_drift": Metric(higher_is_better=False),
    "posterior_max_drift": Metric(higher_is_better=False, pooling="max"),
    **{f"segment_f1_{ms}ms": Metric(higher_is_better=True) for ms in SEGMENT_TOLERANCES_MS},
    # against the known truth, by frame: FunASR pads its segments, so their edges are not the speech's
    "truth_f1": Metric(higher_is_better=True),
    "truth_miss_rate": Metric(higher_is_better=False),
    "truth_false_alarm_rate": Metric(higher_is_better=False),
}


@functools.cache
def speech_threshold(folder: Path) -> float:
    """Probability at which FunASR calls a frame speech: p >= (1 - p) + speech_noise_thres."""
    threshold: float = (1 + read_config(folder)["model_conf"].get("speech_noise_thres", 0.6)) / 2  # FunASR's default
    return threshold


def measure(
    folder: Path, recordings: Sequence[Recording], references: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> list[Counts]:
    """Every metric of each recording as (numerator, denominator).

    Frames are 10 ms; miss rate is over speech frames, false-alarm rate over the others (NIST OpenSAD
    2015 evaluation plan). A segment is found if one of the other side has both its edges within the
    tolerance, each used once.
    """
    threshold = speech_threshold(folder)
    return [_measured(threshold, *of_one) for of_one in zip(recordings, references, outcomes, strict=True)]


def _measured(threshold: float, recording: Recording, reference: Outcome, outcome: Outcome) -> Counts:
    length = min(len(reference.speech), len(outcome.speech))
    said, expected = outcome.speech[:length] >= threshold, reference.speech[:length] >= threshold
    truth = _truth_frames(recording, length)
    drift = np.abs(outcome.speech[:length] - reference.speech[:length])
    hits, misses, alarms = (int(x.sum()) for x in (said & truth, ~said & truth, said & ~truth))
    return {
        "frame_agreement": (int((said == expected).sum()), length),
        "posterior_mean_drift": (float(drift.sum()), length),
        "posterior_max_drift": (float(drift.max()), 1),
        "truth_f1": (2 * hits, 2 * hits + misses + alarms),
        "truth_miss_rate": (misses, int(truth.sum())),
        "truth_false_alarm_rate": (alarms, int((~truth).sum())),
        **{f"segment_f1_{ms}ms": segment_f1(outcome.segments, reference.segments, ms) for ms in SEGMENT_TOLERANCES_MS},
    }


def _truth_frames(recording: Recording, length: int) -> NDArray[np.bool_]:
    """Whether the middle of each 25 ms analysis window is in speech."""
    centre = np.arange(length) * (FRAME_MS / 1000) + 0.0125
    inside = np.zeros(length, bool)
    for start, end in recording.segments:
        inside |= (centre >= start) & (centre < end)
    return inside


def segment_f1(found: Sequence[Sequence[int]], expected: Sequence[Sequence[int]], tolerance_ms: int) -> tuple[int, int]:
    """F1 of segments as (2 * matched, found + expected); both sides are in order of time."""
    matched, start = 0, 0
    for segment in found:
        for i in range(start, len(expected)):
            if all(abs(a - b) <= tolerance_ms for a, b in zip(segment, expected[i], strict=True)):
                matched, start = matched + 1, i + 1
                break
    return 2 * matched, len(found) + len(expected)


# What `reference` keeps


def write_outcomes(folder: Path, mode: str, outcomes: Sequence[Outcome]) -> None:
    """Keep outcomes of one mode for `read_outcomes`."""
    np.savez_compressed(folder / f"{mode}.npz", *(o.speech for o in outcomes))
    write_json(folder / f"{mode}.json", [o.segments for o in outcomes])


def read_outcomes(folder: Path, mode: str) -> list[Outcome]:
    """What `write_outcomes` kept, in the same order."""
    segments = read_json(folder / f"{mode}.json")
    with np.load(folder / f"{mode}.npz") as speech:
        return [Outcome(speech[f"arr_{i}"], s) for i, s in enumerate(segments)]


# Pruning

WIDTHS = ("input_affine_dim", "linear_dim", "proj_dim", "output_affine_dim")  # keys of encoder_conf that can shrink
# The first and last pair of dense layers have no nonlinearity between them and far more width than the
# rank of what passes: a block narrowed to x of its width goes with pairs narrowed to x to this power.
PAIR_POWER = 10
BATCH = 2  # crops in a step of distillation
CROP = 600  # frames: two long crops waste less on masked context than four short ones
REFIT_FRAMES = 48_000  # the recordings as they are and some variations: more costs seconds and gains nothing


def calibration(folder: Path, recordings: Sequence[Recording], settings: PruneParams) -> torch.Tensor:
    """The recordings and variations of them as one stream of the encoder's inputs, (frames, input_dim)."""
    audio = [r.samples() for r in recordings]
    return features(folder, [*audio, *recovery.vary(audio, settings.variations, settings.seed)])


def features(folder: Path, recordings: Sequence[Floats]) -> torch.Tensor:
    """All recordings, float32 (samples,) in [-1, 1), as one stream of the encoder's inputs: (frames, input_dim)."""
    frontend = load_frontend(folder)
    streams = []
    for samples in recordings:
        waveform = torch.from_numpy(samples)[None]
        streams.append(frontend(waveform, torch.tensor([waveform.shape[1]]), cache={}, is_final=True)[0][0])
    return torch.cat(streams)


def context(model: FsmnVADStreaming) -> int:
    """Frames of the past that a frame's posteriors depend on."""
    conf = model.encoder_conf
    frames: int = conf["fsmn_layers"] * (conf["lorder"] - 1) * conf["lstride"]
    return frames


def logits(model: FsmnVADStreaming, speech: torch.Tensor) -> torch.Tensor:
    """The encoder's outputs before the softmax, (batch, frames, output_dim), of features (batch, frames, input_dim)."""
    encoder = model.encoder
    hidden = encoder.fsmn(encoder.relu(encoder.in_linear2(encoder.in_linear1(speech))), None)
    outputs: torch.Tensor = encoder.out_linear2(encoder.out_linear1(hidden))
    return outputs


def widths(model: FsmnVADStreaming) -> dict[str, int]:
    """The layer widths that pruning changes."""
    return {key: model.encoder_conf[key] for key in WIDTHS}


def multiplications(model: FsmnVADStreaming) -> int:
    """Multiply-accumulates for 10 s of audio: every weight that is not a bias is used once for each frame."""
    weights: int = sum(p.numel() for p in model.encoder.parameters() if p.dim() > 1)
    return 10_000 // FRAME_MS * weights


def narrowed(config: dict[str, Any], removed: float, steps: Mapping[str, int]) -> dict[str, Any]:
    """The configuration whose widths, by the keys of `widths` multiples of `steps`, remove closest to `removed`."""

    def at(scale: float) -> dict[str, int]:
        powers = {"input_affine_dim": PAIR_POWER, "output_affine_dim": PAIR_POWER}
        exact = {key: conf[key] * scale ** powers.get(key, 1) / step for key, step in steps.items()}
        return {key: min(conf[key], max(1, round(x)) * steps[key]) for key, x in exact.items()}

    conf, count = config["encoder_conf"], counter(config)
    dense = count({})
    candidates = [at(scale) for scale in np.linspace(0, 1, 1001)]
    return with_widths(config, min(candidates, key=lambda new: abs(1 - count(new) / dense - removed)))


def with_widths(config: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """The configuration with some widths, by the keys of `widths`, changed."""
    return config | {"encoder_conf": config["encoder_conf"] | new}


def counter(config: dict[str, Any]) -> Callable[[Mapping[str, int]], int]:
    """How many parameters the model has with other widths, by the keys of `widths`."""
    return lambda new: _parameters(config["encoder_conf"] | new)


def _parameters(conf: dict[str, Any]) -> int:
    """Parameters of the encoder that FunASR builds from an encoder_conf."""
    first, wide, narrow, last = (conf[key] for key in WIDTHS)
    taps = conf["lorder"] + conf["rorder"]
    block = wide * narrow + narrow * taps + (narrow + 1) * wide
    ends = (conf["input_dim"] + 1) * first + (first + 1) * wide + (wide + 1) * last + (last + 1) * conf["output_dim"]
    return int(conf["fsmn_layers"] * block + ends)


def cut(
    model: FsmnVADStreaming, config: dict[str, Any], stream: torch.Tensor, criterion: str, damping: float
) -> tuple[FsmnVADStreaming, recovery.Refit]:
    """A copy of the model with the smaller widths of `config`, and what refits it.

    The refit: what a dense layer says of the stream is regressed on what the narrow network before it gives, layer
    after layer. The pairs of dense layers at both ends become their best approximation of that rank.

    stream: calibration features (frames, input_dim). criterion: one of `stages.pruning.criteria`.
    """
    stream = stream[:REFIT_FRAMES]
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
    """The model without the channels that `config` has no room for, and the channels each dense layer kept.

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
    """What goes with the channels of a torch-pruning group, each (channels, ...); biases count for nothing."""
    found = [(dep, getattr(dep.target.module, "weight", None)) for dep, _ in group]
    made = graph.is_out_channel_pruning_fn
    return [w if made(dep.handler) else w.transpose(0, 1) for dep, w in found if w is not None]


def _roots(conf: dict[str, Any]) -> dict[str, str]:
    """Dense layers whose outputs can shrink, against the key of their width, from the input to the output."""
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


def distillation(small: FsmnVADStreaming, model: FsmnVADStreaming, stream: torch.Tensor) -> recovery.Loss:
    """The loss of one step: the divergence of the small model's posteriors from the model's on random crops.

    Hinton et al., "Distilling the knowledge in a neural network", 2015, at temperature 1. The first `context`
    frames of a crop are left out: what either says there is of a silence that is not in the recording.

    stream: features (frames, input_dim) of the calibration or the tuning split.

    Raises:
        UserError: the stream is shorter than one crop.
    """
    if len(stream) < CROP:
        raise UserError(
            f"prune: found {len(stream)} frames in a split, wanted at least {CROP} to distil on or to tune on"
        )

    def loss(generator: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(stream) - CROP + 1, (BATCH,), generator=generator).tolist()
        inputs = torch.stack([stream[start : start + CROP] for start in starts])
        heard = slice(context(model), None)
        with torch.no_grad():
            wanted = logits(model, inputs)[:, heard]
        return recovery.divergence(logits(small, inputs)[:, heard], wanted)

    return loss
