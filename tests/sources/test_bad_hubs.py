"""A hub that stalls, trickles, is busy, sends on, asks for credentials or answers nonsense: one line, in time."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from stages.core.errors import UserError
from stages.fetch import fetch
from stages.sources import modelscope, transfer
from tests.hub import Hub
from tests.sources.test_modelscope import FILES, HUB, HUB_ID, REVISION, contents, model, pinned
from tests.workspace import ROOT

TOKEN = "s3cret/t0ken"  # noqa: S105  a slash ends the host's part of an address: every library quotes it otherwise


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    """A folder of its own, a hub that has the files, and an SDK that waits for nothing of its own accord."""
    monkeypatch.chdir(tmp_path)
    for name in ("DOWNLOAD_INTEGRITY_RETRY_BACKOFF", "DOWNLOAD_RETRY_MAX_DELAY_SECONDS"):
        monkeypatch.setattr(f"modelscope_hub._download.{name}", 0)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_RETRY_MAX_DELAY_SECONDS", 0)
    hub.models = {HUB_ID: {REVISION: dict(FILES)}}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little patience, and what is left behind does not try again once the hub is gone."""
    monkeypatch.setattr(transfer, "LIMIT_SECONDS", 0.25)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 0)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)


def refused() -> str:
    """What `fetch` says, which must be one line for the one source."""
    with pytest.raises(UserError) as caught:
        fetch("tiny", model(), pinned(), Path("checkpoint"))
    head, line = str(caught.value).split("\n")
    assert head == "tiny: no source gave the pinned files"
    assert not Path("checkpoint").exists()
    assert len(line) < 400
    return line


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("route", "count"),
    [
        *[pytest.param(route, 0, id=f"{route}-silent") for route in ("HEAD", "repo/files", "revisions", "repo")],
        *[pytest.param(route, 9, id=f"{route}-header") for route in ("HEAD", "repo/files", "revisions", "repo")],
        *[pytest.param(route, math.inf, id=f"{route}-trickle") for route in ("repo/files", "revisions", "repo")],
    ],
)
def test_a_hub_that_does_not_end_its_answer_is_given_up(hub: Hub, route: str, count: float):
    hub.faults.slow = {route: count}
    if route == "revisions":
        hub.models[HUB_ID] = {}
    assert "gave no whole answer in" in refused()


def test_a_page_of_a_listing_has_less_time(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    for name, value in (("PAGE_TIMEOUT_SECONDS", 0.2), ("PAGE_MAX_ATTEMPTS", 2)):
        monkeypatch.setattr(f"modelscope_hub._legacy_api.REPO_TREE_{name}", value)
    hub.faults.slow = {"repo/files": math.inf}
    assert refused().endswith("gave no whole answer in time")


def test_a_large_file_has_more_time():
    assert transfer.seconds(10 * transfer.SLOWEST) == transfer.LIMIT_SECONDS + 10


@pytest.mark.parametrize("route", ["repo/files", "repo"])
def test_a_busy_hub_is_asked_again(hub: Hub, route: str):
    hub.faults.busy = {route: 2}
    fetch("tiny", model(), pinned(), Path("checkpoint"))
    assert contents(Path("checkpoint")) == FILES


@pytest.mark.parametrize("route", ["repo/files", "repo"])
def test_a_hub_that_stays_busy_says_so(hub: Hub, route: str):
    hub.faults.busy, hub.faults.retry_after = {route: math.inf}, "3600"
    assert "RateLimitError: slow down" in refused()


def test_waits_that_a_busy_hub_asks_for_fit_into_the_limit():
    """In a child: the SDK reads its settings once."""
    code = (
        "from stages.sources import modelscope as ours\n"
        "with ours._settings(): from modelscope_hub import constants as c\n"
        "print(c.DOWNLOAD_RETRY_TIMES * c.DOWNLOAD_RETRY_MAX_DELAY_SECONDS)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) < transfer.LIMIT_SECONDS / 2


def test_another_host_that_serves_the_files_gets_no_credentials(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url.replace("//", "//someone:t0ken@"))
    with Hub(hub.models) as other:
        hub.faults.elsewhere = other.url.replace("127.0.0.1", "localhost")
        fetch("tiny", model(), pinned(), Path("checkpoint"))
        assert contents(Path("checkpoint")) == FILES
        assert all("Authorization" in headers for headers in hub.headers)
        assert other.headers
        assert not [headers for headers in other.headers if "Authorization" in headers]


@pytest.mark.parametrize("to", ["file://", "ftp://127.0.0.1", "http://[", "circle"])
def test_a_hub_that_sends_on_to_nowhere(hub: Hub, to: str):
    hub.faults.elsewhere = hub.url if to == "circle" else to
    assert "the hub at http://127.0.0.1" in refused()


@pytest.fixture(params=["http://someone:{}@[", "http://someone:{}@127.0.0.1:1", "ftp://{}@host", "someone:{}@host:x"])
def secret(request: pytest.FixtureRequest) -> str:
    """Addresses with credentials that no library can use."""
    return request.param.format(TOKEN)


def test_credentials_of_an_endpoint_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: str
):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", secret)
    assert not [part for part in TOKEN.split("/") if part in refused() + str(capsys.readouterr())]


@pytest.mark.parametrize("fault", [{"corrupt": math.inf}, {"body": b"[]"}, {"busy": {"repo": math.inf}}])
def test_credentials_are_not_printed_when_the_hub_fails(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: dict[str, Any]
):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url.replace("//", "//someone:t0ken@"))
    vars(hub.faults).update(fault)
    line = refused()
    assert "the hub at http://***@127.0.0.1" in line
    assert "t0ken" not in line + str(capsys.readouterr())


def test_credentials_of_a_proxy_are_not_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", f"http://someone:{TOKEN}@127.0.0.1:1")
    assert not [part for part in TOKEN.split("/") if part in refused()]


def _in_place_of_a_cached_file(manner: str) -> None:
    place = modelscope.place("model.pt", pinned().files["model.pt"])
    place.parent.mkdir(parents=True)
    if manner == "folder":
        (place / "inside").mkdir(parents=True)
    elif manner == "pipe":
        os.mkfifo(place)
    elif manner == "link":
        Path("mine").write_text("mine")
        place.with_suffix(".pt.incomplete").symlink_to(Path("mine").absolute())
    else:
        place.parent.rmdir()
        place.parent.write_text("")


@pytest.mark.parametrize("manner", ["folder", "pipe", "link", "parent"])
def test_what_is_in_the_way_of_a_cached_file_is_named(manner: str):
    _in_place_of_a_cached_file(manner)
    assert str(modelscope.CACHE / pinned().files["model.pt"].sha256) in refused()
    if manner == "link":
        assert Path("mine").read_text() == "mine"


def test_a_full_disk_is_no_fault_of_the_hub(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.pt")

    monkeypatch.setattr("modelscope_hub._download.DownloadManager._download_with_resume", full)
    with pytest.raises(OSError, match="No space left") as caught:
        fetch("tiny", model(), pinned(), Path("checkpoint"))
    assert caught.value.errno == errno.ENOSPC


def test_a_hub_with_very_many_files_is_listed_and_a_message_stays_short(hub: Hub):
    entries = [{"Path": f"f{number}", "Type": "blob", "Size": 1, "Sha256": "0" * 64} for number in range(20_000)]
    hub.faults.body = json.dumps({"Data": {"Files": entries}}).encode()
    assert "model.pt is not on the hub" in refused()


NONSENSE: list[Any] = [None, True, -1, 10**400, math.inf, "", "x", "x\n\x1b[31m", "\ud800", "a" * 100_000]
NONSENSE += [[], [[]], {}, {"a": 1}]
LISTED = {"Code": 200, "Data": {"Files": [{"Path": "a", "Name": "a", "Type": "blob", "Size": 1, "Sha256": "0" * 64}]}}
DEEP = b"[" * 100_000


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from _places(below, (*path, key))


def _mutated() -> Iterator[bytes]:
    yield DEEP
    for *above, last in list(_places(LISTED))[1:]:
        for nonsense in NONSENSE:
            changed: Any = deepcopy(LISTED)
            holder = changed
            for key in above:
                holder = holder[key]
            holder[last] = nonsense
            yield json.dumps(changed).encode()
        yield json.dumps(LISTED).encode().replace(json.dumps(holder[last]).encode(), DEEP)


def test_a_listing_of_any_shape_is_taken_or_refused_in_one_line(hub: Hub):
    bodies, refusals = [*_mutated(), *(json.dumps(nonsense).encode() for nonsense in NONSENSE)], []
    for hub.faults.body in bodies:
        try:
            modelscope.listing(HUB, lambda _: True)
        except UserError as e:
            refusals.append(str(e))
    print(f"inputs tried {len(bodies)}, refused {len(refusals)}, tracebacks 0")
    assert 50 < len(refusals) < len(bodies)
    assert not [line for line in refusals if "\n" in line or len(line) > 400]


@pytest.mark.parametrize("nonsense", NONSENSE[1:])
def test_revisions_of_any_shape_are_refused_in_one_line(hub: Hub, nonsense: Any):
    hub.models[HUB_ID] = {}
    tag = {"RevisionMap": {"Tags": [nonsense]}}
    for hub.faults.revisions in (nonsense, {"RevisionMap": nonsense}, tag, {"RevisionMap": {"Tags": nonsense}}):
        assert "the hub at http://127.0.0.1" in refused()
