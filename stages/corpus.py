"""Stage `corpus`: evaluation, tuning and calibration data with known truth, as manifests and WAV files."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from stages.core import layout, params
from stages.core.errors import entrypoint, key_from
from stages.core.files import new_folder
from stages.core.params.origins import Dataset, Generated, ManifestDataset, MixturesDataset, ModelScopeDataset
from stages.core.params.section import Split
from stages.corpora import hub, long, manifest, vad_mixtures
from stages.sources.index import download


def corpus(dataset: Dataset, folder: Path, *, sealed: bool = False) -> None:
    """Fill `folder` with a data set and check every file of it.

    sealed: of what is generated, make the split `final` too, which no stage reads.

    Raises:
        UserError: an archive cannot be had, or a manifest or WAV file is not as it should be.
    """
    if isinstance(dataset, ManifestDataset):
        manifest.check(Path(dataset.path))  # not the copies, so that messages name the user's files
        _copy(Path(dataset.path), folder)
        return
    if isinstance(dataset, ModelScopeDataset):
        hub.make(dataset, folder)
    else:
        wanted = {split: count for split, count in dataset.counts.items() if sealed or split != manifest.FINAL}
        _generate(dataset, wanted, dataset.seed, folder)
        if dataset.long:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                long.add(folder, dataset.long, partial(_generate_more, dataset, Path(scratch)))
    manifest.check(folder)


def _generate(dataset: Generated, wanted: Mapping[Split, int], seed: int, folder: Path) -> None:
    if isinstance(dataset, MixturesDataset):
        archives = {name: download(archive) for name, archive in dataset.archives.items()}
        vad_mixtures.make(dataset.model_copy(update={"seed": seed, "mixtures": wanted}), archives, folder)
    else:
        importlib.import_module(f"stages.corpora.{dataset.kind}").make(seed, wanted, folder)


def _generate_more(dataset: Generated, folder: Path, count: int) -> Path:
    """Generate other recordings of the evaluation split."""
    _generate(dataset, dict.fromkeys(manifest.SPLITS, 0) | {long.SPLIT: count}, dataset.seed + long.OTHER_SEED, folder)
    return folder


def _copy(origin: Path, folder: Path) -> None:
    """Copy the user's manifests and the WAV files that they name, and nothing else."""
    for split in manifest.splits(origin):
        for recording in manifest.read(origin, split):
            if recording.wav is None:
                continue
            (folder / recording.wav).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(recording.path, folder / recording.wav)
        shutil.copyfile(origin / f"{split}.jsonl", folder / f"{split}.jsonl")


def main(argv: Sequence[str]) -> None:
    """Run `python -m stages.corpus DATASET`."""
    datasets = params.load().datasets
    name = key_from(argv, "corpus", datasets)
    place = layout.corpus(name)
    with new_folder(place) as folder:
        corpus(datasets[name], folder)
    for split in manifest.splits(place):
        recordings = manifest.read(place, split)
        print(f"{name}: {split}: {len(recordings)} items, {sum(r.seconds for r in recordings):.0f} s of audio")
        if marks := manifest.marks(recordings):
            print(f"{name}: {split}: marks in the texts: {', '.join(f'{mark} {n}' for mark, n in marks.most_common())}")


if __name__ == "__main__":
    entrypoint(main)
