"""What keeps DVC from starting: lock files that a kill tore, links in the place of files, an old plan."""

from __future__ import annotations

from collections.abc import Iterator

from stages.commands import heal
from stages.core import links, plan
from stages.core.errors import UserError
from stages.doctor.finding import Finding
from stages.doctor.subject import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Yield each torn lock file, and whether DVC's configuration and plan.yaml are as stages want them."""
    torn = heal.torn()
    for path in torn:
        consequence, fix = "DVC cannot read it; the next build removes it", "any other command of `kiln`"
        yield Finding("dvc", f"{path}: torn by a kill", "warning", "a whole file", consequence, fix)
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
