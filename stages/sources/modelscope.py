"""A checkpoint or data set on the ModelScope hub, through its SDK; the pinned digests decide, not what the hub says."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from pydantic import ValidationError

from stages.core import layout
from stages.core.errors import UserError, did_you_mean, first_line
from stages.core.files import safe_relative
from stages.core.params.origins import ModelScopeSource
from stages.core.pins import PinnedFile
from stages.sources.transfer import LISTING, check_cached, root, seconds, shorten_errors, trust_system, within

# `modelscope_hub` is the part of the SDK that `modelscope` itself delegates to; `import modelscope`
# costs 6 s because it brings torch along. Even the part costs 0.6 s, so functions import it.
if TYPE_CHECKING:
    from modelscope_hub import FileInfo, HubApi

CACHE = layout.CACHE / "modelscope"
LARGE = 2**24  # bytes, of a file that does not stay there
ANSWER_SECONDS = 5  # to connect, and again for the first byte
PARTIAL = ".incomplete"  # the SDK's ending of a file of which a part is there
SETTINGS = {
    # A shorter way is a second address, one that the hub names.
    "MODELSCOPE_DOWNLOAD_INTRA_CLOUD": "false",
    # A hub that asks for a longer wait is asked five times in the time limit, and its answer is the message.
    "MODELSCOPE_DOWNLOAD_RETRY_MAX_DELAY_SECONDS": "8",
}


def listing(source: ModelScopeSource, taken: Callable[[str], bool]) -> dict[str, PinnedFile | None]:
    """List every file of the source's revision, with the size and digest of those that are `taken` and have both.

    Raises:
        UserError: the hub cannot be reached, does not have the repository or the revision, or lists a path that
            would leave its folder.
    """
    with _settings(), _explain_errors():
        _, listed = _listing(source)
    return {name: _pinned(info) if taken(name) else None for name, info in listed.items() if not info.is_dir}


def _pinned(info: FileInfo) -> PinnedFile | None:
    try:
        return PinnedFile(size=info.size, sha256=info.sha256 or "")
    except ValidationError:
        return None


def fetch(source: ModelScopeSource, files: Mapping[str, PinnedFile], folder: Path) -> None:
    """Download `files` into `folder` by way of a cache that resumes what was cut off.

    `MODELSCOPE_ENDPOINT` chooses another hub. Needs no account and sends no token.

    Raises:
        UserError: the hub cannot be reached, does not have the repository, the revision or a file, lists a
            path that would leave its folder, or has other bytes than the pinned ones.
    """
    with _settings(), _explain_errors():
        api, listed = _listing(source)
        for name, pinned in files.items():
            _check_listed(listed, name, pinned, source)
            check_cached(place(name, pinned), place(f"{name}{PARTIAL}", pinned))
        with _hide_bars():
            cached = {name: _download(api, source, name, pinned) for name, pinned in files.items()}
    for name, origin in cached.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, folder / name)


def forget(files: Mapping[str, PinnedFile]) -> None:
    """Remove the large ones of `files` from the download cache: once they are in their place, nobody needs the copy.

    The others stay: `add` reads the configuration there, and another model may have the same tokens on their way.
    """
    for pinned in files.values():
        if pinned.size > LARGE:
            shutil.rmtree(CACHE / pinned.sha256, ignore_errors=True)


@contextmanager
def _settings() -> Iterator[None]:
    """Set options of the SDK that it has no argument for, where the user has not set them."""
    added = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _explain_errors() -> Iterator[None]:
    """Turn the SDK's exceptions into one clear message."""
    from modelscope_hub import FileIntegrityError, HubError, NetworkError, RequestTimeoutError

    with shorten_errors(_hub_name()):
        try:
            yield
        except RequestTimeoutError as e:  # the SDK's own limits, which are shorter for a page of a listing
            raise UserError(f"{_hub_name()} gave no whole answer in time") from e
        except (NetworkError, requests.ConnectionError, requests.Timeout) as e:
            cause = root(e)
            raise UserError(f"{_hub_name()} could not be reached ({type(cause).__name__}: {first_line(cause)})") from e
        except FileIntegrityError as e:
            raise UserError(f"{_hub_name()} keeps sending other bytes than it lists: {e.message}") from e
        except HubError as e:
            raise UserError(f"{_hub_name()} failed ({type(e).__name__}: {e.message})") from e


def _hub_name() -> str:
    """Return the hub's name in messages, from which `UserError` takes the credentials."""
    return f"the hub at {endpoint()}"


def endpoint() -> str:
    """Return the hub's address."""
    from modelscope_hub import HubConfig

    return HubConfig.normalize_endpoint(os.environ.get("MODELSCOPE_ENDPOINT"))


def _connect() -> HubApi:
    """Connect the SDK with all settings given, once the hub has answered anything at all.

    Asking first makes the next source's turn come at once where there is no network: the SDK would try four
    times, 7 s at the least. An endpoint that it is not given may be probed for, a token that it is not given
    is unpickled from the user's home.
    """
    from modelscope_hub import HubApi, HubConfig

    trust_system()
    address = endpoint()
    requests.head(address, timeout=ANSWER_SECONDS)
    return HubApi(HubConfig(endpoint=address, cache_dir=CACHE, config_dir=CACHE / "home", token=""))


def _listing(source: ModelScopeSource) -> tuple[HubApi, dict[str, FileInfo]]:
    """Connect, and return the connection with what the hub lists at the source's revision, by path.

    Raises:
        UserError: it lists nothing, a path that would leave its folder, sends something else, or takes too long.
    """
    api = within(lambda: seconds(0), _hub_name(), _connect)
    listed = within(lambda: LISTING * seconds(0), _hub_name(), lambda: _list_files(api, source))
    if not listed:
        raise UserError(within(lambda: seconds(0), _hub_name(), lambda: _explain_empty(api, source)))
    return api, listed


def _list_files(api: HubApi, source: ModelScopeSource) -> dict[str, FileInfo]:
    from modelscope_hub import HubError, NotExistError

    what = f"{source.hub_id} at {source.revision}"
    try:
        files = api.list_repo_files(source.hub_id, source.repository, revision=source.revision)
        listed = {info.path: info for info in files}
        for path in listed:
            safe_relative(path, what)
    except NotExistError:
        return {}
    except (HubError, UserError):
        raise
    except Exception as e:
        if isinstance(e, OSError) and not isinstance(e, ValueError):  # the network's; what is no JSON is both
            raise
        raise UserError(f"{what}: {_hub_name()} did not answer with a listing of files ({first_line(e)})") from e
    return listed


def _explain_empty(api: HubApi, source: ModelScopeSource) -> str:
    """Find out why the hub lists no files: it answers an unknown revision with an empty listing."""
    from modelscope_hub import NotExistError

    try:
        revisions: list[dict[str, Any]] = api.list_repo_revisions(source.hub_id, source.repository)
    except NotExistError:
        return f"{_hub_name()} has no {source.repository} {source.hub_id!r}"
    known = [str(revision.get("Revision"))[:64] for revision in revisions]
    hint = did_you_mean(source.revision, known)
    return f"{source.hub_id}: {_hub_name()} has no files at revision {source.revision!r}; {hint}"


def _check_listed(listed: Mapping[str, FileInfo], name: str, wanted: PinnedFile, source: ModelScopeSource) -> None:
    """Refuse a file before its first byte where the listing is wrong: the SDK accepts what it cannot check."""
    what = f"{source.hub_id} at {source.revision}: {name}"
    if name not in listed or listed[name].is_dir:
        raise UserError(f"{what} is not on the hub; {did_you_mean(name, listed)}")
    found = listed[name].sha256
    if not found:
        raise UserError(f"{what}: the hub lists no sha256 for it, wanted {wanted.sha256}")
    if found != wanted.sha256:
        raise UserError(f"{what}: the hub lists sha256 {str(found)[:64]}, wanted {wanted.sha256}")


def _hide_bars() -> AbstractContextManager[object]:
    """Hide the SDK's progress bars unless standard error is a terminal: it draws them always."""
    return nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())


def place(name: str, pinned: PinnedFile) -> Path:
    """Return where in the cache a file is, once it was downloaded.

    Its folder is named by its digest, so nothing that another model or revision left is in the way. In
    the SDK's own layout any old `models/OWNER/NAME` would stand in for every revision.
    """
    return CACHE / pinned.sha256 / name


def _download(api: HubApi, source: ModelScopeSource, name: str, pinned: PinnedFile) -> Path:
    """Download a file into the cache, or find it there; the SDK checks its digest, and tries three times."""
    return within(
        lambda: seconds(pinned.size),
        _hub_name(),
        lambda: api.download_file(
            source.hub_id,
            source.repository,
            name,
            revision=source.revision,
            local_dir=CACHE / pinned.sha256,
            expected_sha256=pinned.sha256,
            file_size=pinned.size,
        ),
    )
