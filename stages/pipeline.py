"""Stage `pipeline`: one pipeline on one target against the same pipeline of plain fp32 exports.

A component's gate can pass while the text gets worse: another segment, another text, another number. So the final
text is measured, and which component each error came from: the pipeline runs again with only that one of the target's.
Two passes over live audio tell how late partial and final texts come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages import decoding, models, runtimes
from stages.core import graphs, layout, machine, params, plan, progress
from stages.core.contention import Watch
from stages.core.errors import UserError, entrypoint, key_from
from stages.core.files import write_json
from stages.core.params import EvaluateParams, Params, PipelineParams
from stages.core.params.section import Runtime
from stages.core.parity import LoadedArtifact
from stages.core.plan import PipelineBuild
from stages.core.statistics import certain, describe_drift, drift
from stages.corpora import manifest
from stages.corpora.manifest import Recording
from stages.evaluation.finite import Watched
from stages.evaluation.groups import group
from stages.models import accuracy
from stages.models.protocols import HasText
from stages.pipelines import measurement, transcription
from stages.pipelines.measurement import Heard
from stages.pipelines.transcription import LoadedPipeline, Transcript

HEADLINE = "final_cer"
CASE = "pipeline_1_thread"


def load(p: Params, line: PipelineBuild, folder: Callable[[str], Path], runtime: Runtime) -> LoadedPipeline:
    """Load a pipeline with the artifact in `folder` of each model, on one thread."""
    watched = list[Watched]()

    def ready(model: str) -> tuple[Path, LoadedArtifact]:
        place = folder(model)
        graph_set = graphs.read(place)
        watched.append(Watched((graph_set, runtimes.load(place, graph_set, runtime, threads=1))))
        return layout.checkpoint(model), watched[-1].artifact

    vad = models.DETECTORS.load(p.models[line.vad].family)
    streaming = models.STREAMING_RECOGNIZERS.load(p.models[line.streaming].family)
    punctuation = models.PUNCTUATORS.load(p.models[line.punctuation].family)
    vad_ready = ready(line.vad)
    detect = vad.load_detector(*vad_ready, "offline")
    recognize = _load_recognizer(p, line, *ready(line.asr))
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


def _load_recognizer(
    p: Params, line: PipelineBuild, checkpoint: Path, artifact: LoadedArtifact
) -> Callable[[NDArray[np.float32]], HasText]:
    """Load a pipeline's recognizer, which chooses its tokens as the pipeline's decoder says."""
    family, decoder = p.models[line.asr].family, p.pipelines[line.pipeline].decoder
    if decoder.kind == "greedy":
        return models.RECOGNIZERS.load(family).load_recognizer(checkpoint, artifact)
    asr, key = models.SEARCHABLE.load(family), f"pipelines.{line.pipeline}.decoder"
    return asr.load_recognizer(checkpoint, artifact, decoding.load(decoder, asr.vocabulary(checkpoint), key))


def normalizer() -> Callable[[str], str]:
    """Load WeTextProcessing's inverse text normalization of Mandarin, compiled into the wheel `wetext`."""
    from wetext import Normalizer

    normalize: Callable[[str], str] = Normalizer(lang="zh", operator="itn").normalize
    return normalize


def run_both(
    both: tuple[LoadedPipeline, LoadedPipeline], recordings: Sequence[Recording], settings: PipelineParams, busy: float
) -> list[Heard]:
    """Run baseline and target over the recordings in turn, so that what else the machine does slows both alike.

    busy: the share of the time in which something waited for a core, above which a recording is run again at the end.
    """
    found = []
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
                known=both[0].normalize(recording.text),
                runs=runs,
                busy=waited,
                swapped=transcription.swap_each(samples, *both, *runs[0]),
                live=_run_in_turn(live, both, index) if index < settings.live else ([], []),
                is_finite=both[1].take_finite(),
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
    return [_run_in_turn(transcribe, both, index + number) for number in range(rounds)], watch.share()


def _run_in_turn(
    run: Callable[[LoadedPipeline], Any], both: tuple[LoadedPipeline, LoadedPipeline], number: int
) -> tuple[Any, Any]:
    """Run both and return what they give; which goes first alternates with the number of the round."""
    if number % 2:
        second = run(both[1])
        return run(both[0]), second
    return run(both[0]), run(both[1])


def pipeline(heard: Sequence[Heard], settings: EvaluateParams) -> dict[str, Any]:
    """Return all that pipeline.json says of what was heard.

    Raises:
        UserError: one recording, which has no interval, or none with speech where it should be.
    """
    if len(heard) < 2:
        raise UserError(f"pipeline: found {len(heard)} recording in the evaluation split, wanted 2 and more")
    bootstrap = settings.model_dump(include={"resamples", "confidence", "seed"})
    groups = group([h.recording for h in heard])
    baseline, value = ([measurement.counts(h, side) for h in heard] for side in (0, 1))
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
        "attribution": measurement.attribution(heard, **bootstrap),
        "cases": {CASE: measurement.speed(heard, settings.confidence)},
        "latencies": measurement.latencies(heard),
        "texts": [of for of in texts if of["baseline"] != of["value"]] or texts[:1],
    }


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.pipeline PIPELINE-TARGET`."""
    p = params.load()
    lines = plan.derive(p).pipelines
    name = key_from(argv, "pipeline", lines)
    line = lines[name]
    runtime = p.targets[line.target].runtime
    runtimes.enter(runtime, "pipeline", argv)
    parts = [layout.ARTIFACTS / getattr(line, role) / line.artifact for role in models.ROLES]
    decoder = p.pipelines[line.pipeline].decoder
    why = runtimes.why_unavailable(runtime, *parts) or decoding.why_unavailable(decoder)
    result: dict[str, Any] = {"unavailable": why, "decoder": decoder.model_dump(mode="json")}
    if why is None:
        recordings = manifest.read(layout.corpus(line.dataset), p.evaluate.split)
        baseline = load(p, line, lambda model: layout.graphs(model, "dense", "export"), "onnxruntime")
        target = load(p, line, lambda model: layout.ARTIFACTS / model / line.artifact, runtime)
        result["machine"] = machine.name()
        result |= pipeline(run_both((baseline, target), recordings, p.pipeline, p.benchmark.busy), p.evaluate)
    write_json(layout.measurements(line.target, line.pipeline) / "pipeline.json", result)
    said = why or f"{HEADLINE} {describe_drift(result['metrics'][HEADLINE])}"
    print(f"{name}: {said}")


if __name__ == "__main__":
    entrypoint(main)
