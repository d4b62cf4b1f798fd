"""DVC may not put links where ONNX refuses them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stages.core import links
from stages.core.errors import UserError
from tests import workspace


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace.repository(tmp_path))
    return tmp_path


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "reflink,symlink"])
@pytest.mark.usefixtures("repository")
def test_a_cache_of_links_is_refused_with_the_command_that_mends_it(kind: str):
    subprocess.run(["dvc", "config", "--local", "cache.type", kind], check=True)
    with pytest.raises(UserError, match=r"cache\.type: found (sym|hard)link.*dvc config --local cache\.type reflink"):
        links.refuse()
    subprocess.run(["dvc", "config", "--local", "cache.type", links.WANTED], check=True)
    links.refuse()


def test_a_configuration_that_dvc_cannot_read_is_one_line(repository: Path):
    (repository / ".dvc" / "config.local").write_text("[cache\n")
    with pytest.raises(UserError, match=r"^DVC cannot read its configuration: .*line 1\.$"):
        links.refuse()
