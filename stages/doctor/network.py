"""Whether what is not here can be had: the hub, the package index and DVC's remote are asked for a sign of life."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from stages.core.errors import UserError, first_line
from stages.doctor import needs
from stages.doctor.finding import Finding, level
from stages.doctor.needs import Need, Place
from stages.doctor.subject import Subject
from stages.sources import index
from stages.sources.transfer import root, shorten_errors, trust_system, within

SECONDS = 3.0  # for each answer: a build waits longer
VARIABLES: dict[Place, str] = {"hub": "MODELSCOPE_ENDPOINT", "package index": "PIP_INDEX_URL"}
RUN_CACHE = Path(".dvc/cache/runs")
LOGIN = {401, 407}  # the server's, and a proxy's
PLUGIN = re.compile(r"requires '(dvc-[\w-]+)' to be installed")  # in what DVC says of an address
NO_HEAD = 501  # of a server that answers downloads alone


def check(subject: Subject) -> Iterator[Finding]:
    """Yield whether the places that are needed answer, and what can be had nowhere."""
    missing = list(needs.missing(subject))
    asked = [place for place in VARIABLES if any(place in need.places for need in missing)]
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(_remote)
        answers = dict(zip(asked, pool.map(lambda place: _explain_no_answer(place, ASK[place]), asked), strict=True))
        remote, has_remote = asking.result()
    yield from (_report_place(place, why) for place, why in answers.items())
    yield remote
    for need in missing:
        if all(answers[place] for place in need.places):
            yield _report_missing(need, may_restore=has_remote or RUN_CACHE.is_dir())


def _report_place(place: Place, why: str | None) -> Finding:
    if why is None:
        return Finding(place, "answers")
    wanted, consequence = f"an answer in {SECONDS:g} s", "what has no other source cannot be fetched"
    return Finding(place, why, "warning", wanted, consequence, f"the network, its proxy, or {VARIABLES[place]}")


def _report_missing(need: Need, *, may_restore: bool) -> Finding:
    """Return what becomes of a model whose checkpoint or data no source gives.

    may_restore: results may come out of DVC's cache or its remote instead, which tells only the build.
    """
    wanted = f"an answer of the {' or the '.join(sorted(need.places))}" if need.places else "all of its files"
    consequence = "its builds fail" + (", unless DVC's cache or remote has their results" if may_restore else "")
    return Finding(need.model, f"{need.what}: not here", level(blocks=not may_restore), wanted, consequence, need.fix)


def _explain_no_answer(place: str, ask: Callable[[], None], seconds: float | None = None) -> str | None:
    """Return why a place gave no answer, in one line, or None; seconds: that it has, SECONDS without."""
    limit = SECONDS if seconds is None else seconds
    try:
        with shorten_errors(place):
            within(lambda: limit, place, ask)
    except UserError as e:
        return str(e)
    return None


def _ask_hub() -> None:
    from stages.sources import modelscope

    _ask(modelscope.endpoint())


def _ask_index() -> None:
    _ask(index.endpoint())


ASK: dict[Place, Callable[[], None]] = {"hub": _ask_hub, "package index": _ask_index}


def _ask(address: str) -> None:
    """Ask for the head of a page: any answer will do but a login's, or that nothing works there."""
    proxy = requests.utils.select_proxy(address, requests.utils.get_environ_proxies(address))
    through = f"{address} through the proxy {proxy}" if proxy else address
    trust_system()
    try:
        status = requests.head(address, timeout=SECONDS).status_code
    except requests.RequestException as e:
        cause = root(e)
        raise UserError(f"{through} could not be reached ({type(cause).__name__}: {first_line(cause)})") from e
    if status in LOGIN or (status >= 500 and status != NO_HEAD):
        raise UserError(f"{through} answers with status {status}")


def explain_no_remote(seconds: float) -> str | None:
    """Return why nothing can be had of DVC's default remote, which gets so many seconds to answer, or None.

    Raises:
        UserError: DVC cannot read its configuration.
    """
    name = _remote_name()
    if name is None:
        return "DVC has no default remote"
    return _explain_no_answer(f"remote {name}", lambda: _ask_remote(name), seconds)


def _remote_name() -> str | None:
    from dvc.config import Config

    with shorten_errors("DVC's configuration"):
        found: str | None = Config.from_cwd()["core"].get("remote")
        return found


def _remote() -> tuple[Finding, bool]:
    """Return what is found of DVC's default remote, and whether it answers; no build needs one."""
    try:
        name = _remote_name()
    except UserError as e:
        return Finding("remote", str(e), "blocks", "a configuration", "DVC cannot start", ".dvc/config"), False
    if name is None:
        return Finding("remote", "none is configured: nothing is shared with other machines"), False
    why = _explain_no_answer(f"remote {name}", lambda: _ask_remote(name))
    if why is None:
        return Finding("remote", f"{name} answers"), True
    wanted = f"an answer in {SECONDS:g} s"
    consequence = "`dvc push` fails, and `kiln repro --pull` restores nothing"
    plugin = PLUGIN.search(why)
    fix = f"python -m pip install {plugin[1]}" if plugin else f"its credentials, or dvc remote modify {name} url ..."
    return Finding("remote", why, "warning", wanted, consequence, fix), False


def _ask_remote(name: str) -> None:
    from dvc.repo import Repo

    with Repo(os.fspath(".")) as repo:
        remote = repo.cloud.get_remote(name)
        if remote.path.startswith(("http://", "https://")):
            _ask(remote.path)  # of a server that is not there, `exists` says that it is empty
        if not remote.fs.exists(remote.path):
            raise UserError(f"remote {name}: found nothing at {remote.path}; the first `dvc push` makes it")
