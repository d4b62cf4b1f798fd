"""What each family is measured by. Here, not in the families' folders: params.yaml is checked against it in a moment.

Importing a family takes seconds.
"""

# ruff: noqa: RUF001  the marks are Chinese

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stages.core.statistics import Metric

SCORE, ERROR = Metric(higher_is_better=True), Metric(higher_is_better=False)
EDITS = ("substitutions", "deletions", "insertions")
SEGMENT_TOLERANCES_MS = (50, 100, 200)
MARKS = {"comma": "，", "period": "。", "question": "？", "enumeration": "、"}
EXACTNESS = ("output_difference", "decisions_at_risk")  # of targets that compute what torch computes
LISTED = {"offline": 0, "list1": 1, "list50": 50, "list500": 500}  # hotwords, by mode


class Accuracy(NamedTuple):
    """How a family's models may be run, and what is counted of each of these modes."""

    modes: tuple[str, ...]
    metrics: Mapping[str, Metric]

    def names(self) -> list[str]:
        """Return what params.yaml calls the metrics, those of `stages.evaluation.exactness` among them."""
        return [f"{mode}_{metric}" for mode in self.modes for metric in (*self.metrics, *EXACTNESS)]


FSMN_VAD = Accuracy(
    ("offline", "streaming"),
    {
        # against the fp32 torch baseline
        "frame_agreement": SCORE,
        "posterior_mean_drift": ERROR,
        "posterior_max_drift": Metric(higher_is_better=False, pooling="max"),
        **{f"segment_f1_{ms}ms": SCORE for ms in SEGMENT_TOLERANCES_MS},
        # against the known truth, by frame: FunASR pads its segments, so their edges are not the speech's
        "truth_f1": SCORE,
        "truth_miss_rate": ERROR,
        "truth_false_alarm_rate": ERROR,
    },
)
RECOGNIZER = {
    # against the known text
    **{name: ERROR for rate in ("cer", "wer") for name in (rate, *(f"{rate}_{edit}" for edit in EDITS))},
    # against the fp32 torch baseline
    "cer_relative": ERROR,
    "token_agreement": SCORE,
}
TIMED = RECOGNIZER | {
    # of tokens, in ms, against the fp32 torch baseline; nothing of a graph without times. A recording whose tokens are
    # decided otherwise moves some by a second and more.
    "timestamp_shift_mean": Metric(higher_is_better=False, most=1000.0),
    "timestamp_shift_max": Metric(higher_is_better=False, pooling="max"),
}
PARAFORMER = Accuracy(("offline",), TIMED)
PARAFORMER_STREAMING = Accuracy(("streaming",), RECOGNIZER)
SEACO_PARAFORMER = Accuracy(tuple(LISTED), TIMED | {"hotword_recall": SCORE, "hotword_false_alarms": ERROR})
TAGS = ("language", "emotion", "event")
SENSEVOICE = Accuracy(
    ("woitn", "withitn"),  # as FunASR calls text as it is spoken, and with inverse text normalisation
    {
        **RECOGNIZER,
        **{f"{tag}_accuracy": SCORE for tag in TAGS},  # against the known truth
        **{f"{tag}_agreement": SCORE for tag in TAGS},  # with the fp32 torch baseline
    },
)
CT_TRANSFORMER = Accuracy(
    ("text",),
    {
        "f1": SCORE,
        **{f"f1_{name}": SCORE for name in MARKS},
        "mark_agreement": SCORE,  # with the fp32 torch baseline
        "other_marks": ERROR,  # of the data: marks that are none of these
    },
)
EMOTION2VEC = Accuracy(
    ("utterance",),
    {
        # against the fp32 torch baseline
        "label_agreement": SCORE,
        "embedding_cosine": SCORE,
        "score_distance": ERROR,
        # against the known truth
        "weighted_accuracy": SCORE,
        "unweighted_accuracy": SCORE,
    },
)
CAMPPLUS = Accuracy(
    ("utterance",),
    {
        # against the known speakers
        "eer": ERROR,
        "eer_same_sentence": ERROR,
        "eer_other_sentence": ERROR,
        # against the fp32 torch baseline
        "embedding_cosine": SCORE,
        "embedding_max_distance": Metric(higher_is_better=False, pooling="max"),
    },
)
FAMILIES = {
    "campplus": CAMPPLUS,
    "ct_transformer": CT_TRANSFORMER,
    "emotion2vec": EMOTION2VEC,
    "fsmn_vad": FSMN_VAD,
    "paraformer": PARAFORMER,
    "paraformer_streaming": PARAFORMER_STREAMING,
    "seaco_paraformer": SEACO_PARAFORMER,
    "sensevoice": SENSEVOICE,
}
PIPELINE = {
    "final_cer": ERROR,  # against the known text
    # against the pipeline of plain fp32 exports
    "final_cer_to_fp32": ERROR,
    "partial_cer_to_fp32": ERROR,
    "segment_f1_100ms": SCORE,
}
# Of all families, what is counted against the fp32 model alone, whatever is true of a recording, and means the same of
# few recordings and of many.
AGAINST_FP32 = {
    *("frame_agreement", "posterior_mean_drift"),
    *(f"segment_f1_{ms}ms" for ms in SEGMENT_TOLERANCES_MS),
    *("cer_relative", "token_agreement"),
    "mark_agreement",
    *("label_agreement", "embedding_cosine", "score_distance"),
    *(f"{tag}_agreement" for tag in TAGS),
}
TEXTS_CHANGED = "texts_changed"  # the share of recordings, as it is and not estimated
