"""SenseVoiceSmall, FunASR's recognizer of five languages, which also names language, emotion and event: one graph.

An et al., "FunAudioLLM: Voice Understanding and Generation Foundation Models for Natural Interaction Between Humans and
LLMs", 2024: SAN-M blocks with CTC, and queries before the audio whose positions give the tags. FunASR's own front end,
greedy decoding and tokenizer run unchanged; only the network is swapped.
"""

from __future__ import annotations

from stages.models.sensevoice.metrics import HEADLINE, METRICS, MODES, Outcome, measure, read_outcomes, write_outcomes
from stages.models.sensevoice.network import (
    SCHEMAS,
    build,
    export_modules,
    graph_set,
    load,
    metadata,
    read_config,
    with_widths,
)
from stages.models.sensevoice.pruning import (
    calibration,
    counter,
    cut,
    distillation,
    multiplications,
    narrowed,
    widths,
)
from stages.models.sensevoice.scoring import load_decoder, load_features, load_recognizer, score, vocabulary

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
