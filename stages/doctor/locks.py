"""Find what ends a build at its beginning: lock files that DVC cannot read, links, an old plan, a key that is none."""

from __future__ import annotations

from collections.abc import Iterator

from stages.commands import heal
from stages.core import links, plan
from stages.core.errors import UserError
from stages.doctor.finding import Finding
from stages.doctor.subject import Subject
from stages.release import signature


def check(subject: Subject) -> Iterator[Finding]:
    """Yield each lock file that is not whole, and whether DVC's configuration, plan and key are as stages want them."""
    torn = heal.torn()
    for path in torn:
        consequence, fix = "DVC cannot read it; the next build removes it", "any other command of `kiln`"
        yield Finding("dvc", f"{path}: {heal.describe(path)}", "warning", "a whole file", consequence, fix)
    if not torn:
        yield Finding("dvc", "its lock files are whole")
    try:
        links.refuse()
    except UserError as e:
        fix = f"dvc config --local cache.type {links.WANTED}"
        yield Finding(
            "dvc", str(e), "blocks", f"cache.type {links.WANTED}", "`environment`, the first stage, fails", fix
        )
    try:
        plan.check(subject.p)
    except UserError as e:
        consequence = "`kiln repro` writes it anew; `dvc repro` fails"
        yield Finding("plan", str(e), "warning", "what params.yaml asks for", consequence, "kiln plan")
    try:
        signature.fingerprint()
    except UserError as e:
        consequence = "`environment`, the first stage, fails"
        yield Finding("signing key", str(e), "blocks", "a private key", consequence, f"unset {signature.VARIABLE}")
