"""The real SDK against a hub that lies, loses its connection and has bad days."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.core.params import Model
from stages.core.params.origins import FolderSource, ModelScopeSource, Source
from stages.core.pins import Pin, PinnedFile
from stages.fetch import fetch
from stages.sources import modelscope
from tests.hub import Hub

HUB_ID, REVISION = "someone/tiny.model", "v2.0.4"
FILES = {"model.pt": bytes(range(256)) * 40, "config.yaml": b"model: tiny\n", "example/a.wav": b"RIFF" * 30}
HUB = ModelScopeSource(kind="modelscope", hub_id=HUB_ID, revision=REVISION)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    """A folder of its own, where `.cache` is too, a hub that has the files, and an SDK that tries again at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
    hub.models = {HUB_ID: {REVISION: dict(FILES)}}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An endpoint that refuses connections: its port is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def pinned(files: Mapping[str, bytes] = FILES) -> Pin:
    return Pin(files={n: PinnedFile(size=len(c), sha256=sha256(c).hexdigest()) for n, c in files.items()})


def model(*sources: Source) -> Model:
    return Model(family="tiny", dataset="none", license="MIT", sources=list(sources or [HUB]))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_gets_the_pinned_files_and_no_others(hub: Hub, place: Path) -> None:
    hub.models[HUB_ID][REVISION]["remote_code.py"] = b"raise SystemExit"
    environment = dict(os.environ)
    assert fetch("tiny", model(), pinned(), place) == HUB
    assert contents(place) == FILES
    assert os.environ == environment


def test_asks_nothing_but_the_listing_and_the_files(hub: Hub, place: Path) -> None:
    fetch("tiny", model(), pinned(), place)
    start = f"/api/v1/models/{HUB_ID}/repo"
    assert hub.paths == [f"{start}/files", *[start] * len(FILES)]


def test_writes_nothing_outside_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    fetch("tiny", model(), pinned(), place)
    assert not home.exists()
    assert {path.name for path in tmp_path.iterdir()} == {".cache", "checkpoint"}


def test_sends_no_token(monkeypatch: pytest.MonkeyPatch, hub: Hub, place: Path) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "hush")
    fetch("tiny", model(), pinned(), place)
    assert hub.headers
    assert not any("hush" in str(headers) for headers in hub.headers)


def test_draws_no_bar_where_there_is_no_terminal(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch("tiny", model(), pinned(), place)
    assert capsys.readouterr() == ("", "")


def test_no_second_copy_of_the_weights_stays_in_the_cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelscope, "LARGE", 1000)
    fetch("tiny", model(), pinned(), place)
    assert contents(place) == FILES
    left = contents(modelscope.CACHE).values()
    assert FILES["model.pt"] not in left
    assert FILES["config.yaml"] in left


def test_a_failed_fetch_keeps_what_was_downloaded(hub: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelscope, "LARGE", 1000)
    place.parent.mkdir(exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(PinnedFile, "check", _killed)
        with pytest.raises(KeyboardInterrupt):
            fetch("tiny", model(), pinned(), place)
    hub.downloads.clear()
    fetch("tiny", model(), pinned(), place)
    assert hub.downloads == []
    assert contents(place) == FILES


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_corrupt_bytes_are_refused(hub: Hub, place: Path) -> None:
    hub.faults.corrupt = math.inf
    with pytest.raises(UserError, match=r"other bytes than it lists: Hash mismatch for model\.pt"):
        fetch("tiny", model(), pinned(), place)
    assert not place.exists()
    assert hub.downloads == [("model.pt", None)] * 3


def test_corrupt_bytes_are_downloaded_again(hub: Hub, place: Path) -> None:
    hub.faults.corrupt = 1
    fetch("tiny", model(), pinned(), place)
    assert contents(place) == FILES


def test_resumes_when_the_connection_is_lost(hub: Hub, place: Path) -> None:
    hub.faults.drop = 1
    fetch("tiny", model(), pinned(), place)
    assert contents(place) == FILES
    assert hub.downloads[:2] == [("model.pt", None), ("model.pt", f"bytes={len(FILES['model.pt']) // 2}-")]


def test_the_next_run_resumes(hub: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 0)
    hub.faults.drop = 1
    with pytest.raises(UserError, match="could not be reached"):
        fetch("tiny", model(), pinned(), place)
    assert not place.exists()
    hub.downloads.clear()
    fetch("tiny", model(), pinned(), place)
    assert contents(place) == FILES
    assert hub.downloads[0] == ("model.pt", f"bytes={len(FILES['model.pt']) // 2}-")


def test_refuses_a_file_without_a_digest(hub: Hub, place: Path) -> None:
    hub.faults.no_sha256 = True
    with pytest.raises(UserError, match=r"model\.pt: the hub lists no sha256 for it, wanted [0-9a-f]{64}"):
        fetch("tiny", model(), pinned(), place)
    assert hub.downloads == []


def test_refuses_another_digest(hub: Hub, place: Path) -> None:
    hub.faults.wrong_sha256 = True
    with pytest.raises(UserError, match=r"model\.pt: the hub lists sha256 0{64}, wanted [0-9a-f]{64}"):
        fetch("tiny", model(), pinned(), place)
    assert hub.downloads == []


def test_refuses_a_revision_that_moved(hub: Hub, place: Path) -> None:
    hub.models[HUB_ID][REVISION]["model.pt"] = b"retrained"
    with pytest.raises(UserError, match=f"lists sha256 {sha256(b'retrained').hexdigest()}, wanted"):
        fetch("tiny", model(), pinned(), place)


@pytest.mark.parametrize("path", ["../../evil", "/etc/passwd", "a/../../b", "..\\evil"])
def test_refuses_a_listing_with_a_path_outside(hub: Hub, place: Path, path: str) -> None:
    hub.faults.paths = [path]
    with pytest.raises(UserError, match="would leave its folder; nothing was written"):
        fetch("tiny", model(), pinned(), place)
    assert hub.downloads == []


def test_names_a_missing_file(hub: Hub, place: Path) -> None:
    hub.models[HUB_ID][REVISION]["models.pt"] = hub.models[HUB_ID][REVISION].pop("model.pt")
    with pytest.raises(UserError, match=r"model\.pt is not on the hub; did you mean 'models\.pt'\?"):
        fetch("tiny", model(), pinned(), place)


def test_names_an_unknown_model(place: Path) -> None:
    other = ModelScopeSource(kind="modelscope", hub_id="someone/else", revision=REVISION)
    with pytest.raises(UserError, match="has no model 'someone/else'"):
        fetch("tiny", model(other), pinned(), place)


def test_names_an_unknown_revision(place: Path) -> None:
    other = ModelScopeSource(kind="modelscope", hub_id=HUB_ID, revision="v2.0.5")
    with pytest.raises(UserError, match=r"no files at revision 'v2\.0\.5'; did you mean 'v2\.0\.4'\?"):
        fetch("tiny", model(other), pinned(), place)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>Please log in</html>", id="a login page"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'{"Data": {"Files": ["model.pt"]}}', id="names only"),
        pytest.param(b'{"Data": {"Files": [{"Path": 5}]}}', id="a number for a path"),
        pytest.param(b'{"Data": {"Files": [{"Path": "model.pt", "Size": "large"}]}}', id="a word for a size"),
    ],
)
def test_refuses_what_is_no_listing(hub: Hub, place: Path, body: bytes) -> None:
    hub.faults.body = body
    with pytest.raises(UserError, match="did not answer with a listing of files"):
        fetch("tiny", model(), pinned(), place)


def test_a_poisoned_cache_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    wrong = {name: bytes(len(content)) for name, content in FILES.items()}
    old, new = HUB_ID.replace(".", "___"), HUB_ID.replace("/", "--")  # how two versions of the SDK name a folder
    for root in (tmp_path / "shared", modelscope.CACHE):
        for folder in (f"models/{old}", f"hub/models/{old}", f"models/{new}/snapshots/{REVISION}"):
            _write(root / folder, wrong)
    for file, pin in pinned().files.items():
        _write(modelscope.CACHE / pin.sha256, {file: wrong[file], f"{file}.incomplete": wrong[file][:5]})
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "shared"))
    fetch("tiny", model(), pinned(), place)
    assert contents(place) == FILES


def test_a_poisoned_half_download_changes_nothing(place: Path) -> None:
    for file, pin in pinned().files.items():
        _write(modelscope.CACHE / pin.sha256, {f"{file}.incomplete": bytes(5)})
    fetch("tiny", model(), pinned(), place)
    assert contents(place) == FILES


def test_an_earlier_revision_is_not_mistaken_for_this_one(hub: Hub, place: Path) -> None:
    newer = FILES | {"model.pt": FILES["model.pt"][::-1]}
    hub.models[HUB_ID]["v2.0.5"] = newer
    fetch("tiny", model(), pinned(), place)
    fetch("tiny", model(HUB.model_copy(update={"revision": "v2.0.5"})), pinned(newer), place)
    assert contents(place) == newer


def test_falls_over_to_a_folder_when_the_hub_is_away(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: Path,
    closed_port: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", closed_port)
    mirror = FolderSource(kind="folder", path=tmp_path / "mirror")
    _write(mirror.path, FILES)
    started = time.monotonic()
    assert fetch("tiny", model(HUB, mirror), pinned(), place) == mirror
    assert time.monotonic() - started < 1
    assert contents(place) == FILES
    refused = f"tiny: source modelscope failed: the hub at {closed_port} could not be reached (ConnectionRefusedError: "
    assert capsys.readouterr().err.startswith(refused)


def test_a_hub_that_hangs_is_away(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setattr(modelscope, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UserError, match=r"could not be reached \(TimeoutError: timed out\)"):
            fetch("tiny", model(), pinned(), place)


def test_an_endpoint_that_is_no_address(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://[")
    with pytest.raises(UserError, match=r"the hub at http://\[ failed \(InvalidURL"):
        fetch("tiny", model(), pinned(), place)


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
