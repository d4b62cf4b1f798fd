"""CT-Transformer, FunASR's punctuation model: token ids in, a mark after each token out.

Chen et al., "Controllable Time-Delay Transformer for Real-Time Punctuation Prediction and Disfluency
Detection", ICASSP 2020. Two kinds, told apart by `model` in config.yaml: CTTransformer punctuates a
whole text, CTTransformerStreaming the pieces that a voice activity detector lets through. FunASR's own
splitting, sentence cache and post-processing run unchanged; only the network that gives the logits is
swapped.
"""

from __future__ import annotations

from stages.models.ct_transformer.metrics import (
    HEADLINE,
    METRICS,
    MODES,
    Outcome,
    measure,
    read_marks,
    read_outcomes,
    write_outcomes,
)
from stages.models.ct_transformer.network import SCHEMAS, build, export_modules, graph_set, load, metadata, read_config
from stages.models.ct_transformer.pruning import (
    calibration,
    counter,
    cut,
    distillation,
    multiplications,
    narrowed,
    widths,
)
from stages.models.ct_transformer.scoring import load_punctuator, score
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
    "load_punctuator",
    "measure",
    "metadata",
    "multiplications",
    "narrowed",
    "read_config",
    "read_marks",
    "read_outcomes",
    "score",
    "widths",
    "with_widths",
    "write_outcomes",
]
