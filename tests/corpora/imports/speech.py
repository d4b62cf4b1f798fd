"""Noise that stands for speech, in files as users have them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import soundfile


def put(path: Path, rate: int = 16_000, channels: int = 1, seconds: float = 0.5) -> Path:
    """Write audio that no other path has, in the format that the path's end names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    soundfile.write(path, 0.1 * rng.standard_normal((round(seconds * rate), channels)), rate)
    return path


def kaldi(folder: Path, speakers: int = 4, each: int = 3) -> Path:
    """Write a Kaldi data folder."""
    ids = [f"s{speaker}-u{number}" for speaker in range(speakers) for number in range(each)]
    files = {
        "wav.scp": [f"{id_} {put(folder / f'{id_}.wav')}" for id_ in ids],
        "text": [f"{id_} \u4f60\u597d {id_}" for id_ in ids],
        "utt2spk": [f"{id_} {id_.split('-')[0]}" for id_ in ids],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace a piece of a text file that is there."""
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())
