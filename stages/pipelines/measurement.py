"""What is measured of a pipeline beside that of plain fp32 exports: errors and where they came from, speed, latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np

from stages.core.errors import UserError
from stages.core.speedups import speedup
from stages.core.statistics import Counts, Metric, drift
from stages.corpora.manifest import Recording
from stages.evaluation.groups import group
from stages.models.fsmn_vad.metrics import segment_f1
from stages.models.shared.asr import normalized
from stages.pipelines import transcription
from stages.pipelines.transcription import Transcript, TwoPass

SEGMENT_TOLERANCE_MS = 100
LATENCIES = ("first_partial", "final")


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
        """Return the final text of either pipeline."""
        return self.runs[0][0].text, self.runs[0][1].text


def edits(reference: str, text: str) -> tuple[int, int]:
    """Count character errors and the characters of the reference, by Levenshtein alignment; spaces do not count."""
    aligned = jiwer.process_characters("".join(reference.split()), "".join(text.split()))
    missed = aligned.substitutions + aligned.deletions
    return missed + aligned.insertions, missed + aligned.hits


def counts(heard: Heard, side: int) -> Counts:
    """Count every metric of one recording as (numerator, denominator); side: 0 the baseline, 1 the target.

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
    """Measure what each component alone, and all together, change in the baseline's final text.

    edits: to it; cer_to_fp32: their share of it, with an interval. added_errors: against the known text. What the
    components do alone need not add up to what they do together.
    """
    texts = {name: [h.swapped[name] for h in heard] for name in transcription.COMPONENTS} | {
        "all together": [h.texts[1] for h in heard]
    }
    return {name: _measure_change(heard, said, **bootstrap) for name, said in texts.items()}


def _measure_change(heard: Sequence[Heard], said: Sequence[str], **bootstrap: Any) -> dict[str, Any]:
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
    """Summarize p50 and p90 over segments, in milliseconds, of waiting for audio, of the work after, and of both."""
    result: dict[str, Any] = {}
    for name in LATENCIES:
        for side, label in enumerate(("baseline", "value")):
            of = [getattr(one, name) for h in heard for one in h.live[side]]
            known = np.array([latency for latency in of if latency is not None])
            if not len(known) and label == "baseline":
                if not any(h.recording.segments for h in heard):
                    raise UserError("pipeline: found no `segments` in the manifest, from which latencies are counted")
                raise UserError("pipeline: the fp32 models find no speech where the manifest has `segments`")
            waits = known.reshape(-1, 2)
            parts = {"wait": waits[:, 0], "compute": waits[:, 1], "total": waits.sum(axis=1)}
            result.setdefault(name, {})[label] = {
                part: {f"p{q}_ms": float(np.percentile(values, q)) if len(values) else None for q in (50, 90)}
                for part, values in parts.items()
            } | {"segments": len(known), "without": len(of) - len(known)}
    return result
