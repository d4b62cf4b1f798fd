"""Stage `pipeline`: one pipeline on one target against the same pipeline of plain fp32 exports.

A component's gate can pass while the text gets worse: another segment, another text, another number. So the final
text is measured, and which component each error came from: the pipeline runs again with only that one of the target's.
Two passes over live audio tell how late partial and final texts come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from numpy.typing import NDArray

from stages import models, runtimes
from stages.core import graphs, layout, params, plan, progress
from stages.core.contention import Watch
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import write_json
from stages.core.params import EvaluateParams, Params, PipelineParams
from stages.core.params.section import Runtime
from stages.core.parity import LoadedArtifact
from stages.core.plan import PipelineBuild
from stages.core.statistics import Counts, Metric, certain, describe_drift, drift, speedup
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluation.finite import Watched
from stages.evaluation.groups import group
from stages.models import accuracy
from stages.models.fsmn_vad.metrics import segment_f1
from stages.models.shared.asr import normalized
from stages.pipelines import transcription
from stages.pipelines.transcription import LoadedPipeline, Transcript, TwoPass

HEADLINE = "final_cer"
SEGMENT_TOLERANCE_MS = 100
LATENCIES = ("first_partial", "final")
CASE = "pipeline_1_thread"


@dataclass(frozen=True)
class Heard:
    """What both pipelines made of one recording: every run, swapped components, two passes; baseline first.

    known: the true text after the same normalisation. busy: the share of the runs' time in which something waited for
    a core. live: of a recording that was not heard live, nothing. is_finite: whether no network of the target gave NaN
    or an infinite number.
    """

    recording: Recording
    known: str
    runs: list[tuple[Transcript, Transcript]]
    busy: float
    swapped: dict[str, str]
    live: tuple[list[TwoPass], list[TwoPass]]
    is_finite: bool

    @property
    def texts(self) -> tuple[str, str]:
        """The final text of either."""
        return self.runs[0][0].text, self.runs[0][1].text


def load(p: Params, line: PipelineBuild, folder: Callable[[str], Path], runtime: Runtime) -> LoadedPipeline:
    """Load a pipeline with the artifact in `folder` of each model, on one thread."""
    watched = list[Watched]()

    def ready(model: str) -> tuple[Path, LoadedArtifact]:
        place = folder(model)
        graph_set = graphs.read(place)
        watched.append(Watched((graph_set, runtimes.load(place, graph_set, runtime, threads=1))))
        return layout.checkpoint(model), watched[-1].artifact

    vad = models.DETECTORS.load(p.models[line.vad].family)
    asr = models.RECOGNIZERS.load(p.models[line.asr].family)
    streaming = models.STREAMING_RECOGNIZERS.load(p.models[line.streaming].family)
    punctuation = models.PUNCTUATORS.load(p.models[line.punctuation].family)
    vad_ready = ready(line.vad)
    detect = vad.load_detector(*vad_ready, "offline")
    recognize = asr.load_recognizer(*ready(line.asr))
    punctuate = punctuation.load_punctuator(*ready(line.punctuation))
    return LoadedPipeline(
        detect=lambda samples: detect(samples).segments,
        recognize=lambda samples: recognize(samples).text,
        punctuate=lambda text: punctuate(tokens).text if (tokens := punctuation.read_marks(text)[0]) else "",
        normalize=normalizer(),
        listen=vad.load_streaming_detector(*vad_ready),
        stream=streaming.load_streaming_recognizer(*ready(line.streaming)),
        piece_ms=round(1000 * streaming.CHUNK_SECONDS),
        take_finite=lambda: False not in [network.take() for network in watched],
    )


def normalizer() -> Callable[[str], str]:
    """Inverse text normalisation of Mandarin by WeTextProcessing's rules, compiled into the wheel `wetext`."""
    from wetext import Normalizer

    normalize: Callable[[str], str] = Normalizer(lang="zh", operator="itn").normalize
    return normalize


def listen_to(
    baseline: LoadedPipeline,
    target: LoadedPipeline,
    recordings: Sequence[Recording],
    settings: PipelineParams,
    busy: float,
) -> list[Heard]:
    """Run both pipelines over the recordings in turn, so that what else the machine does slows both alike.

    busy: the share of the time in which something waited for a core, above which a recording is run again at the end.
    """
    both, found = (baseline, target), []
    for one in both:
        transcription.transcribe(one, recordings[0].samples())  # warm
    for index, recording in enumerate(progress.each(recordings, "recordings")):
        samples = recording.samples()
        speech = [(1000 * start, 1000 * end) for start, end in recording.segments]
        live = partial(transcription.two_passes, samples=samples, speech=speech)
        runs, waited = _runs(both, samples, settings.rounds, index)
        found.append(
            Heard(
                recording=recording,
                known=baseline.normalize(recording.text),
                runs=runs,
                busy=waited,
                swapped=transcription.swap_each(samples, *both, *runs[0]),
                live=_in_turn(live, both, index) if index < settings.live else ([], []),
                is_finite=target.take_finite(),
            )
        )
    again = [(index, heard) for index, heard in enumerate(found) if heard.busy > busy]
    for index, heard in progress.each(again, "recordings again, because others work on this machine"):
        runs, waited = _runs(both, heard.recording.samples(), settings.rounds, index)
        if waited < heard.busy:
            found[index] = replace(heard, runs=runs, busy=waited)
    return found


def _runs(
    both: tuple[LoadedPipeline, LoadedPipeline], samples: NDArray[np.float32], rounds: int, index: int
) -> tuple[list[tuple[Transcript, Transcript]], float]:
    """Run both over one recording; return what they made of it, and how busy the machine was meanwhile."""
    watch = Watch()
    transcribe = partial(transcription.transcribe, samples=samples)
    return [_in_turn(transcribe, both, index + number) for number in range(rounds)], watch.share()


def _in_turn(
    run: Callable[[LoadedPipeline], Any], both: tuple[LoadedPipeline, LoadedPipeline], number: int
) -> tuple[Any, Any]:
    """What both give; which of them goes first alternates with the number of the round."""
    if number % 2:
        second = run(both[1])
        return run(both[0]), second
    return run(both[0]), run(both[1])


def edits(reference: str, text: str) -> tuple[int, int]:
    """Character errors and the characters of the reference, by Levenshtein alignment; spaces do not count."""
    aligned = jiwer.process_characters("".join(reference.split()), "".join(text.split()))
    missed = aligned.substitutions + aligned.deletions
    return missed + aligned.insertions, missed + aligned.hits


def counts(heard: Heard, side: int) -> Counts:
    """Every metric of one recording as (numerator, denominator); side: 0 the baseline, 1 the target.

    final_cer counts no marks, because the known text has none but full stops; the rates against the baseline count
    them. A segment of the baseline is found if both edges are within 100 ms.
    """
    (baseline, _), said = heard.runs[0], heard.runs[0][side]
    partials = ["".join(one.partials for one in live) for live in heard.live]
    return {
        "final_cer": edits(normalized(heard.known), normalized(said.text)),
        "final_cer_to_fp32": edits(baseline.text, said.text),
        "partial_cer_to_fp32": edits(partials[0], partials[side]),
        "segment_f1_100ms": segment_f1(list(said.spoken), list(baseline.spoken), SEGMENT_TOLERANCE_MS),
    }


def attribution(heard: Sequence[Heard], **bootstrap: Any) -> dict[str, dict[str, Any]]:
    """What each component alone, and all together, do to the baseline's final text.

    edits: to it; cer_to_fp32: their share of it, with an interval. added_errors: against the known text. What the
    components do alone need not add up to what they do together.
    """
    texts = {name: [h.swapped[name] for h in heard] for name in transcription.COMPONENTS} | {
        "all together": [h.texts[1] for h in heard]
    }
    return {name: _caused(heard, said, **bootstrap) for name, said in texts.items()}


def _caused(heard: Sequence[Heard], said: Sequence[str], **bootstrap: Any) -> dict[str, Any]:
    known = [normalized(h.known) for h in heard]
    before = [edits(k, normalized(h.texts[0]))[0] for k, h in zip(known, heard, strict=True)]
    after = [edits(k, normalized(text))[0] for k, text in zip(known, said, strict=True)]
    changed = [{"cer": edits(h.texts[0], text)} for h, text in zip(heard, said, strict=True)]
    none = [{"cer": (0, length)} for _, length in (c["cer"] for c in changed)]
    groups = group([h.recording for h in heard])
    share = drift(Metric(higher_is_better=False), "cer", none, changed, groups, **bootstrap)
    return {
        "edits": sum(c["cer"][0] for c in changed),
        "cer_to_fp32": share["value"],
        "ci": share["ci"],
        "added_errors": sum(after) - sum(before),
    }


def speed(heard: Sequence[Heard], confidence: float) -> dict[str, Any]:
    """Return the real-time factor of the pipeline, loading excluded, and the speedup over recordings as blocks."""
    pairs = [pair for h in heard for pair in h.runs]
    blocks = [np.array([[sum(said.seconds.values()) for said in pair] for pair in h.runs]) for h in heard]
    work = np.concatenate(blocks)
    audio = sum(h.recording.seconds * len(h.runs) for h in heard)
    steps = {
        step: [sum(pair[side].seconds[step] for pair in pairs) / audio for side in (0, 1)]
        for step in pairs[0][0].seconds
    }
    return {
        "rtf": float(work[:, 1].sum() / audio),
        "baseline_rtf": float(work[:, 0].sum() / audio),
        "rtf_by_step": {step: {"baseline": of[0], "value": of[1]} for step, of in steps.items()},
        **speedup([(block[:, 0], block[:, 1]) for block in blocks], confidence),
        "blocks": len(blocks),
        "pairs": len(pairs),
        "busy": float(np.mean([h.busy for h in heard])),
    }


def latencies(heard: Sequence[Heard]) -> dict[str, Any]:
    """p50 and p90 over segments, in milliseconds: of the wait for audio, of the work after it, and of both."""
    result: dict[str, Any] = {}
    for name in LATENCIES:
        for side, label in enumerate(("baseline", "value")):
            of = [getattr(one, name) for h in heard for one in h.live[side]]
            known = np.array([latency for latency in of if latency is not None])
            if not len(known) and label == "baseline":
                raise UserError("pipeline: the fp32 models find no speech where the manifest has `segments`")
            waits = known.reshape(-1, 2)
            parts = {"wait": waits[:, 0], "compute": waits[:, 1], "total": waits.sum(axis=1)}
            result.setdefault(name, {})[label] = {
                part: {f"p{q}_ms": float(np.percentile(values, q)) if len(values) else None for q in (50, 90)}
                for part, values in parts.items()
            } | {"segments": len(known), "without": len(of) - len(known)}
    return result


def pipeline(heard: Sequence[Heard], settings: EvaluateParams) -> dict[str, Any]:
    """Return all that pipeline.json says of what was heard.

    Raises:
        UserError: one recording, which has no interval, or none with speech where it should be.
    """
    if len(heard) < 2:
        raise UserError(f"pipeline: found {len(heard)} recording in the evaluation split, wanted 2 and more")
    bootstrap = settings.model_dump(include={"resamples", "confidence", "seed"})
    groups = group([h.recording for h in heard])
    baseline, value = ([counts(h, side) for h in heard] for side in (0, 1))
    texts = [
        {"recording": h.recording.id, "known": h.known, "baseline": h.texts[0], "value": h.texts[1]} for h in heard
    ]
    return {
        "headline": HEADLINE,
        "recordings": len(heard),
        "not_finite": sum(not h.is_finite for h in heard),
        "seconds": sum(h.recording.seconds for h in heard),
        "metrics": {name: drift(m, name, baseline, value, groups, **bootstrap) for name, m in accuracy.PIPELINE.items()}
        | {
            accuracy.TEXTS_CHANGED: certain(
                sum(before != after for before, after in (h.texts for h in heard)) / len(heard), len(heard)
            )
        },
        "attribution": attribution(heard, **bootstrap),
        "cases": {CASE: speed(heard, settings.confidence)},
        "latencies": latencies(heard),
        "texts": [of for of in texts if of["baseline"] != of["value"]] or texts[:1],
    }


def main(argv: Sequence[str]) -> None:
    """`python -m stages.pipeline PIPELINE-TARGET`."""
    p = params.load()
    lines = plan.derive(p).pipelines
    name = key_from(argv, "pipeline", lines)
    line = lines[name]
    runtime = p.targets[line.target].runtime
    why = runtimes.why_unavailable(runtime)
    result: dict[str, Any] = {"unavailable": why}
    if why is None:
        recordings = manifest.read(layout.corpus(line.dataset), p.evaluate.split)
        baseline = load(p, line, lambda model: layout.graphs(model, "dense", "export"), "onnxruntime")
        target = load(p, line, lambda model: layout.ARTIFACTS / model / line.artifact, runtime)
        result |= pipeline(listen_to(baseline, target, recordings, p.pipeline, p.benchmark.busy), p.evaluate)
    write_json(layout.measurements(line.target, line.pipeline) / "pipeline.json", result)
    said = why or f"{HEADLINE} {describe_drift(result['metrics'][HEADLINE])}"
    print(f"{name}: {said}")


if __name__ == "__main__":
    entrypoint(main)
