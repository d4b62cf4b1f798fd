"""A loopback server that speaks as much of the model hub's API as its SDK needs, and lies on demand."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    """A folder's files as the hub serves them."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@dataclass
class Faults:
    """What the hub does wrong; a count goes down with each download, `math.inf` never ends."""

    corrupt: float = 0  # downloads to answer with other bytes of the same length
    drop: float = 0  # downloads to cut off in the middle
    no_sha256: bool = False
    wrong_sha256: bool = False
    paths: list[str] = field(default_factory=list)  # listed on top of the files
    body: bytes | None = None  # the answer to every listing, such as a login page
    revisions: Any = None  # what is answered in the place of the revisions
    slow: dict[str, float] = field(default_factory=dict)  # route -> bytes to answer with, one in a while, and no end
    busy: dict[str, float] = field(default_factory=dict)  # route -> requests to answer with 429
    retry_after: str = "0"  # what such an answer asks for
    elsewhere: str | None = None  # the address that every download is sent on to


class Hub(ThreadingHTTPServer):
    """Serves `models` and `datasets` (id -> revision -> path -> bytes) in a `with` block; remembers what was asked."""

    daemon_threads = True

    def __init__(self, models: dict[str, dict[str, Files]] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = models or {}
        self.datasets: dict[str, dict[str, Files]] = {}
        self.faults = Faults()
        self.paths: list[str] = []  # of every request for something
        self.headers: list[Message] = []  # of every request
        self.downloads: list[tuple[str, str | None]] = []  # file path and Range header
        self.closed = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True, name="hub").start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        cast(Hub, self.server).headers.append(self.headers)
        return True

    def do_HEAD(self) -> None:
        if not self._fails("HEAD"):
            self._send(200, b"")

    def _fails(self, route: str) -> bool:
        """Answer as a hub on a bad day, where `faults` has one for this route."""
        hub = cast(Hub, self.server)
        if route in hub.faults.slow:
            self._trickle(hub, hub.faults.slow[route])
        elif hub.faults.busy.get(route, 0) > 0:
            hub.faults.busy[route] -= 1
            self._send(429, b'{"Message": "slow down"}', {"Retry-After": hub.faults.retry_after})
        elif route == "repo" and hub.faults.elsewhere:
            self._send(302, b"", {"Location": hub.faults.elsewhere + self.path})
        else:
            return False
        return True

    def _trickle(self, hub: Hub, count: float) -> None:
        """Send a byte of an endless header or body after the other, `count` of them, and go on holding the line."""
        sent = itertools.chain(b"HTTP/1.0 200 OK\r\n\r\n[", itertools.repeat(32))
        with suppress(OSError):
            for number, byte in enumerate(sent):
                if number >= count or hub.closed.wait(0.005):
                    break
                self.wfile.write(bytes([byte]))
        hub.closed.wait()

    def do_GET(self) -> None:
        hub, url = cast(Hub, self.server), urlsplit(self.path)
        hub.paths.append(url.path)
        route = re.fullmatch(r"/api/v1/(models|datasets)/([^/]+/[^/]+)/(repo/files|repo/tree|repo|revisions)", url.path)
        repositories = hub.datasets if route and route[1] == "datasets" else hub.models
        revisions = repositories.get(route[2]) if route else None
        if route is None or revisions is None:
            self._json(404, {"Code": 10010205001, "Success": False, "Message": "no such repository"})
            return
        if self._fails(route[3]):
            return
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if hub.faults.revisions is not None and route[3] == "revisions":
            self._send(200, json.dumps(hub.faults.revisions).encode())
        elif route[3] == "revisions":
            self._json(200, {"RevisionMap": {"Tags": [{"Revision": name} for name in revisions], "Branches": []}})
        elif route[3] == {"models": "repo/files", "datasets": "repo/tree"}[route[1]]:
            size, page = int(query.get("PageSize", 10**9)), int(query.get("PageNumber", 1))
            self._list(hub.faults, revisions.get(query["Revision"]), slice((page - 1) * size, page * size))
        else:
            self._download(hub, query["FilePath"], revisions.get(query["Revision"], {}).get(query["FilePath"]))

    def _list(self, faults: Faults, files: Files | None, page: slice) -> None:
        if faults.body is not None:
            self._send(200, faults.body)
            return
        if files is None:  # an unknown revision is no error to the hub
            self._json(200, {"Files": None})
            return
        entries = [_entry(path, content) for path, content in files.items()]
        entries += [_entry(path, b"") for path in faults.paths]
        for entry in entries:
            if faults.no_sha256:
                del entry["Sha256"]
            elif faults.wrong_sha256:
                entry["Sha256"] = "0" * 64
        self._json(200, {"Files": entries[page]})

    def _download(self, hub: Hub, path: str, content: bytes | None) -> None:
        ranged = self.headers.get("Range")
        hub.downloads.append((path, ranged))
        if content is None:
            self._json(404, {"Code": 404, "Success": False, "Message": "no such file"})
            return
        if hub.faults.corrupt > 0:
            hub.faults.corrupt -= 1
            content = bytes(byte ^ 1 for byte in content)
        start = int(ranged.removeprefix("bytes=").removesuffix("-")) if ranged else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if ranged else {}
        cut = None
        if hub.faults.drop > 0:
            hub.faults.drop -= 1
            cut = (len(content) - start) // 2
        self._send(206 if ranged else 200, content[start:], headers, cut)

    def _json(self, status: int, data: dict[str, Any]) -> None:
        self._send(status, json.dumps({"Code": status, "Success": status < 400, "Data": data} | data).encode())

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        """Announce all of `body`, send its first `cut` bytes and hang up."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])

    def log_message(self, *_: object) -> None:
        """Say nothing: a test's output is its assertions."""


def _entry(path: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"Path": path, "Name": path.rsplit("/", 1)[-1], "Type": "blob", "Size": len(content), "Sha256": digest}
