"""SeACo-Paraformer, FunASR's recognizer that prefers given hotwords: Paraformer, judged with lists of hotwords too.

Shi et al., "SeACo-Paraformer: A Non-Autoregressive ASR System with Flexible and Effective Hotword Customization
Ability", 2024. What is Paraformer's is taken from there; a second graph, inputs for hotwords and outputs for times
come to it. What differs is what counts: a recording's `hotwords` in the manifest are the words that may be listed,
those that are said first, and each mode lists so many of them.
"""

from __future__ import annotations

from stages.models.paraformer.pruning import distillation, multiplications, widths
from stages.models.seaco_paraformer.metrics import METRICS, measure
from stages.models.seaco_paraformer.network import SCHEMAS, build, export_modules, graph_set, load, read_config
from stages.models.seaco_paraformer.pruning import (
    calibration,
    counter,
    cut,
    narrowed,
)
from stages.models.seaco_paraformer.scoring import MODES, load_recognizer, score
from stages.models.shared.asr import HEADLINE, Outcome, read_outcomes, write_outcomes
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
    "load_recognizer",
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
