"""FSMN-VAD, FunASR's voice activity detector: one streaming graph with four caches.

Zhang et al., "Deep-FSMN for Large Vocabulary Continuous Speech Recognition", 2018. FunASR's own
front end (80 fbanks, 5 frames stacked, CMVN) and state machine run unchanged; only the network that
gives the posteriors is swapped, so a difference between two artifacts is the artifacts'.
"""

from __future__ import annotations

from stages.models.fsmn_vad.metrics import HEADLINE, METRICS, MODES, Outcome, measure, read_outcomes, write_outcomes
from stages.models.fsmn_vad.network import SCHEMAS, build, export_modules, graph_set, load, read_config
from stages.models.fsmn_vad.pruning import (
    counter,
    cut,
    distillation,
    multiplications,
    narrowed,
    widths,
    with_widths,
)
from stages.models.fsmn_vad.scoring import load_detector, load_stream, load_streaming_detector, score
from stages.models.fsmn_vad.stream import calibration

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
    "load_detector",
    "load_stream",
    "load_streaming_detector",
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
