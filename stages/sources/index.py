"""Archives of the Python package index: downloaded by name, checked by digest, never installed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import requests
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    NoSuchProjectError,
    PyPISimple,
    UnsupportedContentTypeError,
    tqdm_progress_factory,
)

from stages.core import layout
from stages.core.errors import UserError, first_line
from stages.core.files import check_sha256, sha256
from stages.core.params.origins import Archive
from stages.sources.transfer import check_cached, seconds, shorten_errors, trust_system, within

FOLDER = layout.CACHE / "archives"
CONNECT_SECONDS, READ_SECONDS = 5, 60
ATTEMPTS = 3


def endpoint() -> str:
    """Return the address of the package index."""
    return os.environ.get("PIP_INDEX_URL") or PYPI_SIMPLE_ENDPOINT  # pip too takes an empty one for none


def place(archive: Archive) -> Path:
    """Return where in the download cache an archive is, once it was downloaded."""
    return FOLDER / archive.file


def download(archive: Archive) -> Path:
    """Return an archive's file in the download cache, and fetch it if it is not there with the right digest.

    `PIP_INDEX_URL` chooses another index, as it does for pip.

    Raises:
        UserError: the index cannot be reached, has no such file, or sends other bytes.
    """
    cached = place(archive)
    partial = cached.with_suffix(".partial")
    with shorten_errors(f"{archive.file}: the download"):
        check_cached(cached, partial)
        if cached.exists() and sha256(cached) == archive.sha256:
            return cached
        cached.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        trust_system()
        within(
            lambda: seconds(_size(partial)),
            f"{archive.file}: the package index",
            lambda: _download_with_retries(archive, partial),
        )
        check_sha256(partial, archive.sha256, archive.file)
        return partial.replace(cached)


def _size(partial: Path) -> int:
    """Return how many bytes came so far: the index need not say how many there will be, and may lie."""
    return partial.stat().st_size if partial.exists() else 0


def _download_with_retries(archive: Archive, partial: Path) -> None:
    for attempt in range(ATTEMPTS):
        try:
            return _download(archive, partial)
        except NoSuchProjectError as e:
            raise UserError(f"{archive.file}: the package index has no project {archive.project!r}") from e
        except (requests.RequestException, UnsupportedContentTypeError) as e:
            if attempt == ATTEMPTS - 1:
                raise UserError(f"{archive.file}: the package index could not be reached ({first_line(e)})") from e
    return None


def _download(archive: Archive, partial: Path) -> None:
    progress = tqdm_progress_factory(desc=archive.file, disable=None, file=sys.stderr)
    timeout = (CONNECT_SECONDS, READ_SECONDS)
    with PyPISimple(endpoint()) as client:
        page = client.get_project_page(archive.project, timeout=timeout)
        package = next((p for p in page.packages if p.filename == archive.file), None)
        if package is None:
            raise UserError(f"{archive.file}: the package index has no such file under {archive.project!r}")
        client.download_package(package, partial, verify=False, progress=progress, timeout=timeout)
