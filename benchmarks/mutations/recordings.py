"""Mutated manifests and WAV files through the check that the stage `corpus` makes of a user's data set."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.mutations.forked import Tally, ending
from stages.core.params.origins import ManifestDataset
from stages.corpora import manifest
from stages.corpora.manifest import SAMPLE_RATE, Line
from stages.corpus import corpus

SEEDS = 10  # of each kind of damage to bytes
Edit = Callable[[Path], None]
LONG, NUL, ABOVE, ABSOLUTE = "x" * 300, "a\0b", "../a", "/etc/passwd"
TEXTS = ("", "wrong", LONG, NUL, ABOVE, ABSOLUTE)
VALUES: tuple[Any, ...] = (None, -1, 0, 1e300, [], [[2, 1]], {}, True, *TEXTS)
FINE: dict[str, tuple[Any, ...]] = {  # what may be so
    "text": TEXTS,
    "written": TEXTS,
    "language": TEXTS,  # which there are is the model's to say, as for the next two
    "label": TEXTS,
    "event": TEXTS,
    "speaker": TEXTS,
    "condition": TEXTS,
    "id": TEXTS[1:],
    "seconds": (True,),
    "segments": ([],),
    "hotwords": ([],),
}


def make(folder: Path) -> None:
    """Write a sound data set of two recordings in each split."""
    rng = np.random.default_rng(0)
    for split in manifest.SPLITS:
        lines = []
        for number in range(2):
            name = f"{split}-{number}.wav"
            digest = manifest.write_wav(folder / name, 0.1 * rng.standard_normal(SAMPLE_RATE))
            lines.append(
                Line(id=f"{split}-{number}", wav=name, seconds=1, sha256=digest, segments=[(0.1, 0.5)], text="a")
            )
        manifest.write(folder, split, lines)


def _line(**changes: Any) -> Edit:
    """Change the first line of a manifest."""

    def edit(folder: Path) -> None:
        path = folder / "evaluation.jsonl"
        first, *rest = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps(json.loads(first) | changes), *rest]) + "\n")

    return edit


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return edit


def _sound(samples: Any, rate: int = SAMPLE_RATE, kind: str = "WAV") -> Edit:
    """Give the first recording other samples, and its line what is true of them."""

    def edit(folder: Path) -> None:
        path = folder / "evaluation-0.wav"
        values = np.asarray(samples, np.float32)
        soundfile.write(path, values, rate, format=kind, subtype="FLOAT")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        _line(sha256=digest, seconds=max(len(values), 1) / SAMPLE_RATE, segments=[])(folder)

    return edit


def _flip(seed: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        rng, array = np.random.default_rng(seed), np.frombuffer(data, np.uint8).copy()
        array[rng.integers(min(len(array), 200), size=4)] = rng.integers(256, size=4)
        return array.tobytes()

    return change


def _cut_end(seed: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: -10 * (seed + 1)]


def _beginning(seed: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: len(data) * seed // SEEDS]


def mutations() -> Iterator[tuple[str, Edit, bool]]:
    """Yield changes to a data set by name, and whether each must be refused."""
    for field in Line.model_fields:
        for value in VALUES:
            yield f"{field}: {value!r:.30}", _line(**{field: value}), value not in FINE.get(field, ())
    for seed in range(SEEDS):
        yield f"manifest, flipped {seed}", _bytes("evaluation.jsonl", _flip(seed)), False
        yield f"WAV, flipped {seed}", _bytes("evaluation-0.wav", _flip(seed)), True
        yield f"manifest, cut {seed}", _bytes("evaluation.jsonl", _cut_end(seed)), True
        yield f"WAV, cut {seed}", _bytes("evaluation-0.wav", _beginning(seed)), True
    yield "byte-order mark", _bytes("evaluation.jsonl", lambda data: b"\xef\xbb\xbf" + data), False
    yield "not UTF-8", _bytes("evaluation.jsonl", lambda data: data.replace(b'"a"', b'"\xc4"')), True
    yield "U+2028", _bytes("evaluation.jsonl", lambda data: data.replace(b'"a"', '"\u2028"'.encode())), False
    yield "deep", _bytes("evaluation.jsonl", lambda data: data + b"[" * 100_000 + b"\n"), True
    yield "id twice", _line(id="evaluation-1"), True
    yield "split twice", lambda folder: _copy(folder, "evaluation.jsonl", "tuning.jsonl"), True
    for name, value in {"NaN": np.nan, "infinity": np.inf, "scale": 20_000.0}.items():
        yield name, _sound([0.1, value, 0.1]), True
    for count in (1, 384, 399, 400):
        yield f"{count} samples", _sound([0.1] * count), False
    yield "no samples", _sound([]), True
    yield "8 kHz", _sound([0.1] * 999, rate=8000), True
    yield "stereo", _sound([[0.1, 0.1]] * 999), True
    yield "AIFF", _sound([0.1] * 999, kind="AIFF"), True
    yield "the same sound", _copy_tuning_sound, True


def _copy_tuning_sound(folder: Path) -> None:
    _sound(soundfile.read(folder / "tuning-0.wav")[0], kind="WAVEX")(folder)


def _copy(folder: Path, origin: str, place: str) -> None:
    shutil.copy(folder / origin, folder / place)


def run() -> list[Tally]:
    """Try every mutation of a small data set."""
    tally = Tally("manifests and audio")
    for name, edit, bad in mutations():
        with tempfile.TemporaryDirectory() as scratch:
            mine, place = Path(scratch) / "mine", Path(scratch) / "place"
            mine.mkdir()
            place.mkdir()
            make(mine)
            edit(mine)
            dataset = ManifestDataset(kind="manifest", path=str(mine))
            tally.add(name, ending(partial(corpus, dataset, place)), bad=bad)
    return [tally]
