"""Metadata in a graph's own file, by which sherpa-onnx runs it: without it, that program exits.

Read in sherpa-onnx 2.0.1. Its feature sizes and, of streams, its chunks are its own: tests/test_release.py says what
they cost. What is not here, such as SeACo-Paraformer with its list of hotwords, it has no place for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.corpora.manifest import SAMPLE_RATE
from stages.models.shared import cmvn, tokens
from stages.models.shared.schema_parts import Frontend

SEPARATOR = "|"  # between tokens: there is no way to escape it
Metadata = dict[str, str]


def recognizer(folder: Path, frontend: Frontend, vocabulary: int) -> Metadata:
    """Return what it reads of a recognizer: how features are stacked, shifted and scaled, and how many tokens are."""
    shift, scale = cmvn.read(folder)
    return {
        "vocab_size": str(vocabulary),
        "lfr_window_size": str(frontend.lfr_m),
        "lfr_window_shift": str(frontend.lfr_n),
        "neg_mean": ",".join(shift),
        "inv_stddev": ",".join(scale),
    }


def speaker_embedding(size: int) -> Metadata:
    """Return what it reads of a speaker embedding: that features are of samples within 1, less their mean over time.

    size: of an embedding. language: shown, and not used.
    """
    return {
        "framework": "3d-speaker",
        "language": "Chinese",
        "output_dim": str(size),
        "sample_rate": str(SAMPLE_RATE),
        "normalize_samples": "1",
        "feature_normalize_type": "global-mean",
    }


def queries(languages: Mapping[str, int], styles: Mapping[str, int]) -> Metadata:
    """Return what it reads of SenseVoice beside that: the numbers by which it asks for a language and for figures.

    languages, styles: as FunASR has them by name.
    """
    return {
        **{f"lang_{name}": str(number) for name, number in languages.items()},
        "with_itn": str(styles["withitn"]),
        "without_itn": str(styles["woitn"]),
        "normalize_samples": "0",  # FunASR's front end takes 16-bit numbers
    }


def punctuator(folder: Path, marks: Sequence[str]) -> Metadata:
    """Return what it reads of a punctuation model: all tokens and marks; nothing where one has the separator in it."""
    known = tokens.read(folder)
    if any(SEPARATOR in symbol for symbol in (*known, *marks)):
        return {}
    return {
        "tokens": SEPARATOR.join(known),
        "punctuations": SEPARATOR.join(marks),
        "vocab_size": str(len(known)),
        "unk_symbol": tokens.UNKNOWN,
    }
