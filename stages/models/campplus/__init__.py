"""CAM++, FunASR's speaker embedding: one graph from the features of speech to a vector that tells who speaks.

Wang et al., "CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking", 2023. FunASR's
own features (80 filters without their mean over time) run unchanged; only the network is swapped.
"""

from __future__ import annotations

from stages.models.campplus.metrics import HEADLINE, METRICS, MODES, Outcome, measure, read_outcomes, write_outcomes
from stages.models.campplus.network import SCHEMAS, build, export_modules, graph_set, load, metadata, read_config
from stages.models.campplus.pruning import (
    calibration,
    counter,
    cut,
    distillation,
    multiplications,
    narrowed,
    widths,
    with_widths,
)
from stages.models.campplus.scoring import load_embedder, score

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
    "load_embedder",
    "measure",
    "metadata",
    "multiplications",
    "narrowed",
    "read_config",
    "read_outcomes",
    "score",
    "widths",
    "with_widths",
    "write_outcomes",
]
