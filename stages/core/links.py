"""How DVC puts artifacts into the working tree. Weights of over 128 MiB lie in a file that must not be a link.

onnx, onnx_ir and ONNX Runtime refuse such a file behind a symbolic link, and the first two one with several hard links:
a graph of a stranger's could read any file that way.
"""

from __future__ import annotations

from pathlib import Path

from stages.core.errors import UserError, from_library

FOLDER = Path(".dvc")
LINKS = ("symlink", "hardlink")
WANTED = "reflink,copy"


def refuse() -> None:
    """Refuse a configuration of DVC, on any of its levels, by which artifacts may become links.

    Raises:
        UserError: `cache.type` has a kind of link, or DVC cannot read its configuration.
    """
    from dvc.config import Config

    with from_library("DVC cannot read its configuration"):
        kinds = Config(str(FOLDER) if FOLDER.is_dir() else None)["cache"].get("type") or []
    if found := [kind for kind in kinds if kind in LINKS]:
        raise UserError(
            f"DVC's cache.type: found {found[0]}, wanted {WANTED}: ONNX opens no weights behind links; run `dvc config "
            f"--local cache.type {WANTED}` (a cache for several users may stay where it is: cache.dir)"
        )
