"""emotion2vec, FunASR's speech emotion recognizer: one graph from a waveform to embeddings and label scores.

Ma et al., "emotion2vec: Self-Supervised Pre-Training for Speech Emotion Representation", 2023. FunASR's own
inference (normalized waveform, mean over frames, softmax, label list) runs unchanged; only the network is swapped.
"""

from __future__ import annotations

from stages.models.emotion2vec.metrics import (
    HEADLINE,
    METRICS,
    MODES,
    Outcome,
    labels,
    measure,
    read_outcomes,
    write_outcomes,
)
from stages.models.emotion2vec.network import SCHEMAS, build, export_modules, graph_set, load, read_config
from stages.models.emotion2vec.pruning import (
    calibration,
    counter,
    cut,
    distillation,
    multiplications,
    narrowed,
    widths,
    with_widths,
)
from stages.models.emotion2vec.scoring import load_classifier, score

__all__ = [
    "HEADLINE",
    "METRICS",
    "MODES",
    "SCHEMAS",
    "Outcome",
    "build",
    "calibration",
    "counter",
    "cut",
    "distillation",
    "export_modules",
    "graph_set",
    "labels",
    "load",
    "load_classifier",
    "measure",
    "multiplications",
    "narrowed",
    "read_config",
    "read_outcomes",
    "score",
    "widths",
    "with_widths",
    "write_outcomes",
]
