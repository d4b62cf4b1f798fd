"""Paraformer for streams: an encoder graph run once for each 600 ms, a decoder graph with caches for its tokens.

Gao et al., "Paraformer: Fast and Accurate Parallel Transformer for Non-autoregressive End-to-End Speech
Recognition", 2022; Zhang et al., "Streaming Chunk-Aware Multihead Attention for Online End-to-End Speech
Recognition", 2020.

FunASR streams in two ways. Its ONNX runtime (`funasr_onnx`, ParaformerOnline) gives the encoder each chunk with
300 ms of features before and after it and nothing else; its torch `generate` can also keep attention keys and
values of earlier chunks (`encoder_chunk_look_back`, `decoder_chunk_look_back`), for which the runtime's graphs have
no inputs. Graphs here are the runtime's. With the look-backs at zero, FunASR's default, and the runtime's chunk of
(5, 10, 5) frames, torch computes the same as the graphs, and that is what `score` runs and what the baseline is. With
look-back, which FunASR's documentation suggests for torch, the text may differ from every artifact's, fp32 included.
At the end of a recording `funasr_onnx` runs a remainder of over 300 ms as two chunks where torch runs one longer
one, so their last tokens may differ, with the same graphs.
"""

from __future__ import annotations

from stages.models.paraformer.pruning import widths
from stages.models.paraformer_streaming.network import (
    CHUNK_SECONDS,
    SCHEMAS,
    build,
    export_modules,
    graph_set,
    load,
    metadata,
    read_config,
)
from stages.models.paraformer_streaming.pruning import (
    calibration,
    counter,
    cut,
    distillation,
    multiplications,
    narrowed,
)
from stages.models.paraformer_streaming.scoring import MODES, load_stream, load_streaming_recognizer, score
from stages.models.shared.asr import HEADLINE, METRICS, Outcome, measure, read_outcomes, write_outcomes
from stages.models.shared.sanm import with_widths

__all__ = [
    "CHUNK_SECONDS",
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
    "load_stream",
    "load_streaming_recognizer",
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
