"""Archives of the package index: found by name, kept once, refused when they are not the pinned bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.core.errors import UserError
from stages.core.params.origins import Archive
from stages.sources import transfer
from stages.sources.index import download

NAME, DATA = "tiny-1.0-py3-none-any.whl", bytes(range(256)) * 100


class Index(BaseHTTPRequestHandler):
    """A package index with one project of one file, that cuts off as many downloads as `drops` says."""

    drops = 0
    downloads = 0
    page = f'<a href="/files/{NAME}">{NAME}</a>'.encode(), "text/html"
    status = 200
    held = threading.Event()  # set when a download that sends nothing more may end

    def do_GET(self) -> None:
        if self.path == "/simple/tiny/":
            self.answer(*self.page)
        elif self.path == f"/files/{NAME}":
            type(self).downloads += 1
            cut = self.downloads <= self.drops
            self.answer(DATA, "application/zip", len(DATA) // 2 if cut else None)
            if cut:
                self.held.wait()
        else:
            self.send_error(404)

    def answer(self, body: bytes, kind: str, cut: int | None = None) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    monkeypatch.chdir(tmp_path)

    class Handler(Index):
        held = threading.Event()

    Handler.held.set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield Handler
        Handler.held.set()
        server.shutdown()


def archive(**changes: str) -> Archive:
    return Archive(**{"project": "tiny", "file": NAME, "sha256": sha256(DATA).hexdigest(), **changes})


def test_an_archive_is_downloaded_once(index: type[Index]):
    for _ in range(2):
        assert download(archive()).read_bytes() == DATA
    assert index.downloads == 1


def test_a_dropped_connection_is_tried_again(index: type[Index]):
    index.drops = 2
    assert download(archive()).read_bytes() == DATA
    assert index.downloads == 3


def test_a_connection_that_keeps_dropping_ends_in_one_message(index: type[Index]):
    index.drops = 99
    with pytest.raises(UserError, match="the package index could not be reached"):
        download(archive())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"sha256": "0" * 64}, r"found sha256 .* \(25600 bytes\), wanted 0000", id="other-bytes"),
        pytest.param({"file": "tiny-2.0-py3-none-any.whl"}, "has no such file under 'tiny'", id="no-such-file"),
        pytest.param({"project": "tinny"}, "has no project 'tinny'", id="no-such-project"),
    ],
)
@pytest.mark.usefixtures("index")
def test_what_is_not_the_pinned_archive_is_refused(changes: dict[str, str], said: str):
    with pytest.raises(UserError, match=said):
        download(archive(**changes))
    assert not list(Path(".cache/archives").glob("*.whl"))


def test_a_broken_file_in_the_cache_is_replaced(index: type[Index]):
    place = download(archive())
    place.write_bytes(DATA[:100])
    assert download(archive()).read_bytes() == DATA
    assert index.downloads == 2


def test_an_index_that_stalls_is_given_up(index: type[Index], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfer, "LIMIT_SECONDS", 0.2)
    index.drops = 99
    index.held.clear()
    with pytest.raises(UserError, match="the package index gave no whole answer in"):
        download(archive())


def test_a_busy_index_says_so(index: type[Index]):
    index.status = 429
    with pytest.raises(UserError, match=r"could not be reached .*429"):
        download(archive())


def test_an_answer_that_is_nested_too_deep_is_one_line(index: type[Index]):
    index.page = b"[" * 100_000, "application/vnd.pypi.simple.v1+json"
    with pytest.raises(UserError, match=r"tiny-1\.0.*failed .RecursionError") as caught:
        download(archive())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [NAME, NAME.replace(".whl", ".partial")])
def test_a_folder_in_the_place_of_an_archive_is_named(index: type[Index], name: str):
    place = Path(".cache/archives") / name
    place.mkdir(parents=True)
    with pytest.raises(UserError, match=f"{name}: found something that is not a plain file"):
        download(archive())
    assert index.downloads == 0


@pytest.mark.parametrize("address", ["http://someone:t0ken@127.0.0.1:1/simple/", "http://someone:t0ken@[/simple/"])
def test_credentials_of_an_index_are_not_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", address)
    with pytest.raises(UserError) as caught:
        download(archive())
    assert "t0ken" not in str(caught.value)
