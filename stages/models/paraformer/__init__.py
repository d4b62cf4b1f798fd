"""Paraformer, FunASR's offline recognizer: one graph from features to the log-probabilities of all tokens at once.

Gao, Zhang, McLoughlin & Yan, "Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive End-to-End
Speech Recognition", 2022. FunASR's own front end and decoding run unchanged; only the network is swapped.
"""

from __future__ import annotations

from stages.models.paraformer.network import SCHEMAS, build, export_modules, graph_set, load, metadata, read_config
from stages.models.paraformer.pruning import (
    calibration,
    counter,
    cut,
    distillation,
    multiplications,
    narrowed,
    widths,
)
from stages.models.paraformer.scoring import (
    METRICS,
    MODES,
    load_decoder,
    load_features,
    load_recognizer,
    score,
    vocabulary,
)
from stages.models.shared.asr import HEADLINE, Outcome, read_outcomes, write_outcomes
from stages.models.shared.asr import measure_with_times as measure
from stages.models.shared.sanm import with_widths

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
    "load",
    "load_decoder",
    "load_features",
    "load_recognizer",
    "measure",
    "metadata",
    "multiplications",
    "narrowed",
    "read_config",
    "read_outcomes",
    "score",
    "vocabulary",
    "widths",
    "with_widths",
    "write_outcomes",
]
