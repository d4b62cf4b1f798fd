"""Passwords and tokens are in no message: of an address, of the environment, in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stages.core.credentials import redacted
from stages.core.errors import UserError
from tests.workspace import ROOT


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("at http://me:pass@host/x failed", "at http://***@host/x failed", id="address"),
        pytest.param("http://me:p@ss@host", "http://***@host", id="two-signs"),
        pytest.param("git+ssh://git@host/a, mail me@host", "git+ssh://***@host/a, mail me@host", id="mail"),
        pytest.param("http://host/a@v1", "http://host/a@v1", id="path"),
        pytest.param("bad port 'sl/ash' or sl%2Fash", "bad port '***' or ***", id="environment"),
        pytest.param("someone:sl/ash@proxy and t0ken", "***@proxy and ***", id="whole"),
    ],
)
def test_credentials_are_hidden(monkeypatch: pytest.MonkeyPatch, text: str, wanted: str):
    monkeypatch.setenv("https_proxy", "someone:sl%2Fash@proxy:80")
    monkeypatch.setenv("HTTP_PROXY", "http://someone:sl/ash@proxy:80")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "t0ken")
    assert redacted(text) == wanted
    assert str(UserError(text)) == wanted


def test_a_bug_s_traceback_has_none():
    code = "from stages.core.errors import entrypoint\ndef bug(_): raise ValueError('http://me:pass@host')\nentrypoint(bug)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("ValueError: http://***@host\n")
