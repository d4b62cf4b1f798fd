"""Whether each checkpoint and data set can be had: from here, the hub or the index; and DVC's remote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import requests

from stages.core import layout, pins
from stages.core.errors import UserError, first_line
from stages.core.params import Model
from stages.core.params.origins import Archive, FolderSource, MixturesDataset, ModelScopeDataset, ModelScopeSource
from stages.core.params.origins import WheelSource as Wheel
from stages.doctor.finding import Finding, level
from stages.doctor.subject import Subject
from stages.sources import index
from stages.sources.transfer import one_line, root, within

SECONDS = 3.0  # for each answer: a build waits longer
HUB, INDEX = "hub", "package index"
Answers = dict[str, str | None]
"""Why each place that is needed cannot be reached, or None."""


def check(subject: Subject) -> Iterator[Finding]:
    """Yield whether what the builds need is here or can be reached, and whether DVC's remote can."""
    needs = {name: list(_places(name, model, subject)) for name, model in subject.models.items()}
    asked: dict[str, Callable[[], None]] = {HUB: _ask_hub, INDEX: _ask_index}
    wanted = [place for place in asked if any(place in options for each in needs.values() for options in each)]
    with ThreadPoolExecutor() as pool:
        asking = {place: pool.submit(_why_not, place, asked[place]) for place in wanted}
        remote: Future[Finding] = pool.submit(_remote)
        answers = {place: future.result() for place, future in asking.items()}
    stuck = {name: each for name, each in needs.items() if not all(_is_had(options, answers) for options in each)}
    yield from (_reached(place, why, [n for n in stuck if _waits(stuck[n], place)]) for place, why in answers.items())
    yield remote.result()


def _places(name: str, model: Model, subject: Subject) -> Iterator[set[str]]:
    """Yield, for each thing that a model needs, where it can be had; nothing of what is here already."""
    if not layout.checkpoint(name).is_dir():
        yield from [options] if (options := _of_checkpoint(name, model)) else []
    dataset = subject.p.datasets[model.dataset]
    if layout.corpus(model.dataset).is_dir():
        return
    if isinstance(dataset, ModelScopeDataset):
        yield {HUB}
    elif isinstance(dataset, MixturesDataset) and not all(map(_is_downloaded, dataset.archives.values())):
        yield {INDEX}


def _of_checkpoint(name: str, model: Model) -> set[str]:
    """Return where a checkpoint can be had, or nothing if one of its sources is here."""
    options = set()
    for source in model.sources:
        if isinstance(source, FolderSource) and _is_whole(name, source):
            return set()
        if isinstance(source, Wheel) and _is_downloaded(source.archive):
            return set()
        options.add(HUB if isinstance(source, ModelScopeSource) else INDEX if isinstance(source, Wheel) else "folder")
    return options


def _is_whole(name: str, source: FolderSource) -> bool:
    try:
        pin = pins.read(name)
    except UserError:
        return False
    return pin is not None and all((source.path / file).is_file() for file in pin.files)


def _is_downloaded(archive: Archive) -> bool:
    return index.place(archive).is_file()


def _is_had(options: set[str], answers: Answers) -> bool:
    return any(place in answers and answers[place] is None for place in options)


def _waits(needs: list[set[str]], place: str) -> bool:
    return any(place in options for options in needs)


def _reached(place: str, why: str | None, stuck: list[str]) -> Finding:
    if why is None:
        return Finding(place, "answers")
    wanted, variable = f"an answer in {SECONDS:g} s", {HUB: "MODELSCOPE_ENDPOINT", INDEX: "PIP_INDEX_URL"}[place]
    consequence = "nothing: there are other sources" if not stuck else f"no source is left for {', '.join(stuck)}"
    fix = f"the network, {variable}, or `{{kind: folder, path: ...}}` first among `sources`"
    return Finding(place, why, level(blocks=bool(stuck)), wanted, consequence, fix)


def _why_not(place: str, ask: Callable[[], None]) -> str | None:
    """Return why a place gave no answer, in one line, or None."""
    try:
        with one_line(place):
            within(lambda: SECONDS, place, ask)
    except UserError as e:
        return str(e)
    return None


def _ask_hub() -> None:
    from stages.sources import modelscope

    _ask(modelscope.endpoint())


def _ask_index() -> None:
    _ask(index.endpoint())


def _ask(address: str) -> None:
    """Ask for the head of a page: any answer will do."""
    try:
        requests.head(address, timeout=SECONDS)
    except requests.RequestException as e:
        cause = root(e)
        raise UserError(f"{address} could not be reached ({type(cause).__name__}: {first_line(cause)})") from e


def _remote() -> Finding:
    """Return whether DVC's default remote is there; a build without `--pull` needs none."""
    from dvc.config import Config

    try:
        with one_line("DVC's configuration"):
            name = Config.from_cwd()["core"].get("remote")
    except UserError as e:
        return Finding("remote", str(e), "blocks", "a configuration", "DVC cannot start", ".dvc/config")
    if name is None:
        return Finding("remote", "none is configured: nothing is shared with other machines")
    why = _why_not(f"remote {name}", lambda: _ask_remote(name))
    if why is None:
        return Finding("remote", f"{name} answers")
    wanted, consequence = f"an answer in {SECONDS:g} s", "`kiln repro --pull` and `dvc push` fail; a build does not"
    return Finding("remote", why, "warning", wanted, consequence, f"dvc remote modify {name} url ...")


def _ask_remote(name: str) -> None:
    from dvc.repo import Repo

    with Repo(os.fspath(".")) as repo:
        remote = repo.cloud.get_remote(name)
        if not remote.fs.exists(remote.path):
            raise UserError(f"remote {name}: found nothing at {remote.path}; the first `dvc push` makes it")
