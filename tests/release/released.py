"""A workspace in which one build passed and was released, with a key that signed it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stages import package, summary
from stages.core import layout, params, plan
from stages.core.files import write_json
from stages.release import signature
from stages.reporting import results
from tests import workspace
from tests.workspace import ROOT

BUILD = "fsmn_vad-good"
PRIVATE, PUBLIC = "key.pem", "key.pub"


def make(root: Path, export: Path) -> None:
    """Make it of exported graphs, in a folder that is empty or has pins of its own."""
    workspace.make(root, bad=False, unsure=False)
    if not (root / "pins").is_dir():
        shutil.copytree(ROOT / "pins", root / "pins")
    shutil.copytree(export, root / "artifacts" / workspace.MODEL / "dense" / "export", dirs_exist_ok=True)
    for name in (PRIVATE, "other.pem"):
        write_key(root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv(signature.VARIABLE, (root / PRIVATE).read_text())
        p = params.load()
        entries = {name: results.build_entry(p, name) for name in plan.derive(p).builds}
        write_json(layout.SUMMARY, summary.summary(entries, {}, results.environment()))
        package.main([])


def write_key(place: Path) -> None:
    """Write a new private key to `place` in PEM, and its public one beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    place.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    place.with_suffix(".pub").write_bytes(key.public_key().public_bytes(*public))
