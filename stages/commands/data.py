"""Make a data set with three manifests of speech data of your own."""

from __future__ import annotations

import importlib
from argparse import ArgumentParser, Namespace
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from stages.commands import yaml_lines
from stages.core import layout, params
from stages.core.errors import UserError, first_of
from stages.core.files import new_folder, write_text
from stages.core.params import PARAMS, yaml_text
from stages.core.params.origins import ManifestDataset
from stages.core.params.section import Split
from stages.core.statistics import LEAST
from stages.corpora import manifest
from stages.corpora.imports import audio, split
from stages.corpora.imports.utterances import Found, Utterance
from stages.corpora.manifest import Line

EXAMPLE = "kiln data import my_audio --kaldi my/data"
LAYOUTS = {
    "kaldi": "wav.scp, text, utt2spk and perhaps segments",
    "aishell": "data_aishell or a part of it, such as wav/test",
    "librispeech": "SPEAKER/CHAPTER/*.trans.txt with FLAC files",
    "common-voice": "validated.tsv and clips/, or another table beside clips/",
}
LEFT_OUT = "left_out.tsv"
SAME = "the same audio as another"


def add_arguments(parser: ArgumentParser) -> None:
    """Add what to do, the layout and place of the data, and how many utterances to take."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    imported = actions.add_parser(
        "import", help="write manifests and WAV files to data/NAME, and NAME into params.yaml"
    )
    imported.epilog = f"example: {EXAMPLE}"
    imported.add_argument("name", metavar="NAME", help="of the data set")
    layouts = imported.add_mutually_exclusive_group(required=True)
    for flag, what in LAYOUTS.items():
        layouts.add_argument(f"--{flag}", metavar="DIR", help=what)
    imported.add_argument("--items", metavar="C,T,E", default="100,100,500", help="at most, in each split: %(default)s")
    imported.add_argument("--seed", type=int, default=0, help="draws speakers and utterances: %(default)s")


def run(arguments: Namespace) -> None:
    """Import the data."""
    layout_, origin = next((flag, place) for flag in LAYOUTS if (place := vars(arguments)[flag.replace("-", "_")]))
    import_(arguments.name, layout_.replace("-", "_"), Path(origin), parse_items(arguments.items), arguments.seed)


def import_(name: str, layout_: str, origin: Path, items: Mapping[Split, int], seed: int) -> None:
    """Write manifests and WAV files of at most `items` utterances to data/NAME, and the data set into params.yaml.

    layout_: a module of `stages/corpora/imports/`.

    What is left out is in data/NAME/left_out.tsv, its reasons are printed. Nothing is written unless all is valid.

    Raises:
        UserError: the name is taken, the data is not as its layout has it, or too little of it can be used.
    """
    old, place = yaml_text.read(PARAMS), layout.data(name)
    new = _add_dataset(old, name, place)
    if not origin.exists():
        raise UserError(f"{origin} is not there; wanted data as {layout_} has it")
    found: Found = importlib.import_module(f"stages.corpora.imports.{layout_}").read(origin)
    if not found.utterances:
        raise UserError(
            f"{origin}: none of {len(found.left_out)} utterances can be used{_list_reasons(found.left_out)}"
        )
    try:
        parts = split.assign_speakers(found.utterances, items, seed)
    except UserError as e:
        raise UserError(f"{origin}: {e}{_list_reasons(found.left_out)}") from e
    with new_folder(place) as folder:
        lines, converted = _write(parts, items, folder, found.left_out)
        if empty := [part for part in items if not lines[part]]:
            raise UserError(f"{origin}: nothing is left for {', '.join(empty)}{_list_reasons(found.left_out)}")
        manifest.check(folder)
        write_text(folder / LEFT_OUT, "".join(f"{id_}\t{why}\n" for id_, why in found.left_out.items()))
        write_text(PARAMS, new)
    _report(name, lines, converted, found)


def parse_items(text: str) -> dict[Split, int]:
    """Parse how many utterances each split gets at most.

    Raises:
        UserError: it is not a number over 0 for each.
    """
    counts = [int(part) if part.isascii() and part.isdigit() else 0 for part in text.split(",")]
    if len(counts) != len(manifest.SPLITS) or not all(counts):
        raise UserError(f"--items: found {text!r}, wanted a number over 0 for each of {', '.join(manifest.SPLITS)}")
    return dict(zip(manifest.SPLITS, counts, strict=True))


def _add_dataset(text: str, name: str, place: Path) -> str:
    """Insert the data set into params.yaml.

    Raises:
        UserError: the name cannot be one, or params.yaml or data/ has it already.
    """
    yaml_lines.check_name(name, "a data set")
    wanted = ManifestDataset(kind="manifest", path=str(place))
    present = params.load().datasets.get(name, wanted)
    if present != wanted:
        raise UserError(f"params.yaml has a data set {name!r} already, of kind {present.kind}; choose another name")
    new = yaml_lines.insert(text, ("datasets",), name, [f"{name}: {{kind: manifest, path: {place}}}"])
    params.parse(new, f"{PARAMS} with {name} added")
    if place.exists():
        raise UserError(f"{place} is there already; remove it to import it again, or choose another name")
    return new


def _write(
    parts: Mapping[Split, Sequence[Utterance]], items: Mapping[Split, int], folder: Path, left_out: dict[str, str]
) -> tuple[dict[Split, list[Line]], Counter[str]]:
    """Write each split's audio and manifest.

    Returns:
        The lines of each manifest, and how many files had what other rate and channels.
    """
    seen: dict[str, str] = {}
    converted: Counter[str] = Counter()
    lines: dict[Split, list[Line]] = {}
    for part, utterances in parts.items():
        usable = islice(_write_usable(part, utterances, folder, seen, left_out), items[part])
        total = min(items[part], len(utterances))
        taken = list(tqdm(usable, desc=part, total=total, unit="utterance", disable=None))
        lines[part] = [line for line, _ in taken]
        converted.update(was for _, was in taken if was)
        manifest.write(folder, part, lines[part])
    return lines, converted


def _write_usable(
    part: Split, utterances: Sequence[Utterance], folder: Path, seen: dict[str, str], left_out: dict[str, str]
) -> Iterator[tuple[Line, str]]:
    """Write the audio of one utterance after the other; leave out what cannot be used or was `seen` before."""
    for number, utterance in enumerate(utterances):
        name = f"{part}-{number:05}.wav"
        try:
            line, was = audio.write(utterance, folder, name)
        except audio.UnusableError as e:
            left_out[utterance.id] = str(e)
            continue
        sound = manifest.content(manifest.read_wav(folder / name))
        if seen.setdefault(sound, utterance.id) == utterance.id:
            yield line, was
        else:
            left_out[utterance.id] = SAME
            (folder / name).unlink()


def _report(name: str, lines: Mapping[Split, Sequence[Line]], converted: Counter[str], found: Found) -> None:
    for part, chosen in lines.items():
        speakers, seconds = len({line.speaker for line in chosen}), sum(line.seconds for line in chosen)
        print(f"{name}: {part}: {len(chosen)} utterances of {speakers} speakers, {seconds:.0f} s of audio")
    heard = len({line.speaker for line in lines["evaluation"]})
    if heard < LEAST:
        print(
            f"  evaluation: a build takes {LEAST} speakers to pass, here are {heard}: it will be inconclusive; "
            "other --items give it more, where there are more"
        )
    for was, count in converted.items():
        print(f"  {count} were of {was}: made 16 kHz mono")
    taken = {line.id for chosen in lines.values() for line in chosen}
    more = sum(each.id not in found.left_out and each.id not in taken for each in found.utterances)
    if more:
        print(f"  {more} more are not needed")
    print(f"  left out: {len(found.left_out)}{_list_reasons(found.left_out)}")
    print(f"next: `kiln add MODEL --dataset {name}`; {layout.data(name) / LEFT_OUT} names what was left out")


def _list_reasons(left_out: Mapping[str, str]) -> str:
    """List the reasons for leaving utterances out, one a line, each with a count and its first few utterances."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for id_, why in left_out.items():
        by_reason[why].append(id_)
    return "".join(f"\n    {len(ids)}: {why} ({first_of(ids, 3)})" for why, ids in by_reason.items())
