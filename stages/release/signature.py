"""model.sig: a signature over all other files of a release folder, with an elliptic-curve key and no network.

In the format of OpenSSF Model Signing, which other programs verify too: `model_signing verify key`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stages.core.errors import UserError, first_line

if TYPE_CHECKING:
    from model_signing import hashing

FILE = "model.sig"
VARIABLE = "KILN_SIGNING_KEY"
PEM = "-----BEGIN"
HOW = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"


def sign(folder: Path, key: str) -> None:
    """Sign all that is in `folder`; key: a private key in PEM, or the path of a file with one.

    Raises:
        UserError: it is no private key on one of the curves that model-signing takes.
    """
    from model_signing import signing

    with _locate_key(key) as path, _reading():
        signer = signing.Config().use_elliptic_key_signer(private_key=path)
        signer.set_hashing_config(_ignore_signature()).sign(folder, folder / FILE)


def why_not_verified(folder: Path, key: Path) -> str | None:
    """Return in what a folder is not what the owner of a key signed, or None; key: the public one, in PEM.

    Raises:
        UserError: it is no public key.
    """
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except (OSError, TypeError, ValueError) as e:
        raise UserError(f"{key}: {type(e).__name__}: {first_line(e)}; wanted an elliptic-curve public key") from e
    if not (folder / FILE).is_file():
        return "is not signed"
    try:
        verifier.set_hashing_config(_ignore_signature()).verify(folder, folder / FILE)
    except Exception as e:  # noqa: BLE001  a signature is untrusted input, which the library parses with three others
        return f"{FILE} is no signature of this folder with {key}: {first_line(e)}"
    return None


def environment_key() -> str | None:
    """Return the private key that the environment names, or holds; None where it has none."""
    return os.environ.get(VARIABLE) or None


def fingerprint() -> str | None:
    """Return the SHA-256 of the public half of the environment's key, by which a build tells that it is another.

    Raises:
        UserError: it is no private key.
    """
    with public_key() as path:
        return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def public_key() -> Iterator[Path | None]:
    """Give the path of the public half of the environment's key in PEM, or None where it has none.

    Raises:
        UserError: it is no private key.
    """
    from cryptography.hazmat.primitives import serialization

    if (key := environment_key()) is None:
        yield None
        return
    with _locate_key(key) as path, _reading():
        public = serialization.load_pem_private_key(path.read_bytes(), None).public_key()
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    with _locate_key(public.public_bytes(*form).decode()) as place:
        yield place


@contextmanager
def _reading() -> Iterator[None]:
    """Name the environment's key in the error where the block cannot use it."""
    try:
        yield
    except (OSError, TypeError, ValueError) as e:  # no file; a password; no key, or another curve
        wanted = f"wanted an elliptic-curve private key in PEM: {HOW}"
        raise UserError(f"{VARIABLE}: {type(e).__name__}: {first_line(e)}; {wanted}") from e


def _ignore_signature() -> hashing.Config:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[FILE], ignore_git_paths=False)


@contextmanager
def _locate_key(key: str) -> Iterator[Path]:
    """Give the path of a key: the library reads files."""
    if not key.lstrip().startswith(PEM):
        yield Path(key)
        return
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as f:  # readable by its owner alone
        f.write(key)
        f.flush()
        yield Path(f.name)
