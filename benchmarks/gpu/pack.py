"""What a machine without this build needs for `python -m benchmarks.gpu`, as small as that can be.

    python -m benchmarks.gpu.pack FOLDER --recordings 60

The folder gets the graphs of every model that is built here, with some evaluation recordings and what fp32 torch made
of them, and the skeletons of the large ones. Copy it over a checkout of the same commit there.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from benchmarks.gpu import subjects
from stages import models
from stages.core import layout, params
from stages.core.files import write_text
from stages.core.params import Params
from stages.corpora import manifest
from stages.corpora.manifest import Line, Recording

T = TypeVar("T")


def pack(p: Params, folder: Path, count: int) -> None:
    """Copy what is measured into `folder`, with up to `count` recordings of each model, spread over its data set."""
    if subjects.SKELETONS.is_dir():
        shutil.copytree(subjects.SKELETONS, folder / subjects.SKELETONS)
    for subject in subjects.miniatures(p):
        for origin in (*subject.folders.values(), layout.checkpoint(subject.name)):
            shutil.copytree(origin, folder / origin)
        _pack_recordings(p, subject.name, folder, count)


def _pack_recordings(p: Params, model: str, folder: Path, count: int) -> None:
    corpus, reference = layout.corpus(p.models[model].dataset), layout.reference(model)
    recordings = _spread(manifest.read(corpus, p.evaluate.split), count)
    text = "".join(f"{r.model_dump_json(include=set(Line.model_fields))}\n" for r in recordings)
    write_text(folder / corpus / f"{p.evaluate.split}.jsonl", text)
    for recording in recordings:
        _copy_audio(recording, folder)
    family = models.load(p.models[model].family)
    (folder / reference).mkdir(parents=True)
    shutil.copyfile(layout.quality(reference), folder / layout.quality(reference))  # of all recordings
    for mode in family.MODES:
        family.write_outcomes(folder / reference, mode, _spread(family.read_outcomes(reference, mode), count))


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Return up to `count` of the items, evenly spread; the same places for sequences of one length."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def _copy_audio(recording: Recording, folder: Path) -> None:
    if recording.wav is not None:
        (folder / recording.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(recording.path, folder / recording.path)


def main(argv: Sequence[str]) -> None:
    """Pack what is built here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recordings", type=int, default=60, help="of each model, at most")
    options = parser.parse_args(argv)
    pack(params.load(), options.folder, options.recordings)


if __name__ == "__main__":
    main(sys.argv[1:])
