"""Fixtures that more than one test of serving needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.extras import triton_server as triton
from tests.workspace import ROOT


@pytest.fixture(scope="session")
def released(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A release folder of each family: of a miniature, in fp32."""
    folders = {}
    for name in triton.FAMILIES:
        checkpoint = tiny_checkpoint if name == "fsmn_vad" else ROOT / "zoo" / name
        folders[name] = tmp_path_factory.mktemp("release")
        triton.release(name, checkpoint, tmp_path_factory.mktemp("artifact"), folders[name])
    return folders
