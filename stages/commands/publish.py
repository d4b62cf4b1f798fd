"""Publish releases: push them to DVC's remote and register a version of each with GTO, as a tag of git.

The tag names a commit on top of this one, which alone has the locks of the build: `dvc artifacts get` finds the folder
by them, from any clone. What others will get is got and verified here before the version is registered.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from stages.commands import dvc
from stages.core import layout
from stages.core.errors import UserError, did_you_mean, from_library
from stages.core.files import read_json
from stages.core.git import git, reason, refuse_changed, refuse_without_remote
from stages.release import statement, verification

EXAMPLE = "kiln publish fsmn_vad-cpu_int8 --version v1.2.0"
DVC_YAML = Path("dvc.yaml")
STAGE = "package"  # the stage of which the releases are the output
DIRTY = "-dirty"
VERSION = re.compile(r"v\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")


def add_arguments(parser: ArgumentParser) -> None:
    """Take names of builds, a version, the owner's key and where the tags go."""
    parser.add_argument("builds", nargs="*", metavar="BUILD", help="of artifacts/release; all of them without a name")
    parser.add_argument("--version", help="such as v1.2.0; without one, the next patch level of each")
    parser.add_argument("--key", type=Path, help="public key in PEM, with which each release has to be signed")
    parser.add_argument("--git-remote", default="origin", help="where the tags are pushed; default: %(default)s")


def run(arguments: Namespace) -> None:
    """Check, push, register.

    Raises:
        UserError: a folder is not as it was released, files differ from the commit, there is no remote that a clone
            knows, or DVC, GTO or git refuse.
    """
    builds = _released(arguments.builds)
    if arguments.version is not None and not VERSION.fullmatch(arguments.version):
        raise UserError(f"version {arguments.version!r}: wanted v and three numbers, such as v1.2.0")
    for build in builds:
        verification.check(layout.RELEASE / build, arguments.key)
        _check_commit(layout.RELEASE / build)
    refuse_without_remote()
    refuse_changed()
    commit = _commit(builds)
    _dvc("push", STAGE)
    for build in builds:
        _check_what_others_get(build, commit, arguments.key)
    tags = [_register(build, commit, arguments.version) for build in builds]
    git("push", "--quiet", arguments.git_remote, *(f"refs/tags/{tag}" for tag in tags))
    for build, tag in zip(builds, tags, strict=True):
        print(f"published {tag}: dvc artifacts get REPOSITORY {build} --rev {tag.partition('@')[2]}")


def _released(wanted: Sequence[str]) -> list[str]:
    """Return the names of the builds to publish, all that are released where none is named."""
    known = sorted(path.name for path in layout.RELEASE.glob("*") if path.is_dir())
    if not known:
        raise UserError(f"{layout.RELEASE} has no release; `kiln repro` makes them of builds that passed")
    for build in wanted:
        if build not in known:
            raise UserError(f"no release {build!r} in {layout.RELEASE}; {did_you_mean(build, known)}")
    return list(dict.fromkeys(wanted)) or known


def _check_commit(folder: Path) -> None:
    """Refuse a release that was built from files that no commit has."""
    described = statement.commit(read_json(folder / statement.FILE))
    if described.endswith(DIRTY):
        raise UserError(f"{folder} was built from {described}: commit what differs, and build it again")


def _commit(builds: Sequence[str]) -> str:
    """Make a commit on top of this one that has the locks and names the artifacts; return its id.

    Nothing here changes: neither the branch nor the index nor a file. The same build gives the same commit.
    """
    head = git("rev-parse", "HEAD").strip()
    date = git("show", "--no-patch", "--format=%cI", head).strip()
    with tempfile.TemporaryDirectory() as scratch:
        at = {"GIT_INDEX_FILE": f"{scratch}/index", "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        git("read-tree", head, environment=at)
        for place in sorted(Path().glob("**/dvc.lock")):
            if not any(part.startswith(".") for part in place.parts):
                git("add", "--force", str(place), environment=at)
        described = git("hash-object", "-w", "--stdin", given=_add_artifacts(builds)).strip()
        git("update-index", "--cacheinfo", f"100644,{described},{DVC_YAML}", environment=at)
        tree = git("write-tree", environment=at).strip()
        return git("commit-tree", tree, "-p", head, "-m", f"Release {', '.join(builds)}", environment=at).strip()


def _add_artifacts(builds: Sequence[str]) -> str:
    """Return dvc.yaml with an entry for each release, by which `dvc artifacts get` finds it."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), StringIO()
    content = yaml.load(DVC_YAML.read_text(encoding="utf-8"))
    for build in builds:
        entry = {"path": (layout.RELEASE / build).as_posix(), "type": "model"}
        content.setdefault("artifacts", {})[build] = entry
    yaml.dump(content, text)
    return text.getvalue()


def _check_what_others_get(build: str, commit: str, key: Path | None) -> None:
    """Get a release by the commit and check that it is the one here: DVC's locks may be of another build."""
    with tempfile.TemporaryDirectory() as scratch:
        got = Path(scratch) / build
        _dvc("get", ".", (layout.RELEASE / build).as_posix(), "--rev", commit, "--out", str(got))
        verification.check(got, key)
        if (got / verification.SUMS).read_bytes() != (layout.RELEASE / build / verification.SUMS).read_bytes():
            raise UserError(f"{layout.RELEASE / build} is not what DVC has of it: `kiln repro`, then publish again")


def _register(build: str, commit: str, version: str | None) -> str:
    """Register a version of a build at the commit; return its tag, which is there already after a push that failed."""
    import gto

    if before := git("tag", "--points-at", commit, "--list", f"{build}@*").split():
        if version not in {None, before[0].partition("@")[2]}:
            raise UserError(f"this release of {build} is {before[0]} already; wanted {version}")
        return before[0]
    with from_library(f"GTO could not register {build}"):
        gto.api.register(".", build, commit, version=version)
    return git("tag", "--points-at", commit, "--list", f"{build}@*").split()[0]


def _dvc(*arguments: str) -> None:
    done = subprocess.run(dvc.command([*arguments, "--quiet"]), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {reason(done.stderr)}")
