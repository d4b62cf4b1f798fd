"""Fixtures that more than one test module needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub import Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty model hub on the loopback interface, chosen by the environment."""
    with Hub() as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("MODELSCOPE_DOWNLOAD_INTRA_CLOUD", raising=False)
        yield server
