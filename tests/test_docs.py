"""The pages for people: their commands are ones that the programs take, their links and paths lead somewhere.

A command in a fenced block is parsed by the program's own parser with its arguments, one between backticks at least by
the name of its command. Those with which two builds are compared are run in a small project.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dvc.cli.parser import get_main_parser
from ruamel.yaml import YAML

from stages import commands
from stages.core import params, plan
from stages.core.files import write_json
from stages.reporting.drawing import COLOURS
from tests import workspace
from tests.workspace import MODEL, ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "NOTES.md",
    ROOT / "searches" / "README.md",
]
GUIDES = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it says what was, too
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Made by commands.
MADE = ("artifacts", "reports", "data", ".cache", ".venv", ".dvc/cache", ".dvc/tmp", ".dvc/config.local", "my")
# Not Kiln's, and not checked further.
SHELL = {".", "cd", "eval", "export", "ls", "sha256sum", "git", "openssl", "pre-commit", "head"}


def fences(page: Path, *kinds: str) -> Iterator[str]:
    """Yield the text of each fenced block of these kinds."""
    for kind, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind in kinds:
            yield text


def spans(page: Path) -> Iterator[str]:
    """Yield what stands between backticks, outside of fenced blocks, on one line."""
    for text in SPAN.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield " ".join(text.split())


def fenced_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of a shell block, and of each step of a CI job."""
    lines = [line for text in fences(page, "sh") for line in text.splitlines()]
    lines += [match for text in fences(page, "yaml") for match in re.findall(r"- run: (.*)", text)]
    for line in lines:
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


def kiln(words: Sequence[str]) -> None:
    """Parse a command line of `kiln` by its own parser; what `repro` passes on, by DVC's."""
    arguments, others = commands.parser(commands.NAMES).parse_known_args(words)
    if arguments.command == "repro":
        dvc(["repro", *others])
    else:
        assert not others


def dvc(words: Sequence[str]) -> None:
    """Parse a command line of `dvc` by its own parser; targets and settings must be the repository's."""
    arguments = get_main_parser().parse_args(words)
    tables = plan.derive(params.load(ROOT / "params.yaml"))
    for target in getattr(arguments, "targets", None) or []:
        stage, _, key = target.partition("@")
        assert stage == "report", f"{target}: only targets of the top dvc.yaml have no path before them"
        assert key in tables.reports
    for setting in getattr(arguments, "set_param", None) or []:
        value: Any = YAML(typ="safe").load(ROOT / "params.yaml")
        for part in setting.partition("=")[0].split("."):
            value = value[part]


def make(words: Sequence[str]) -> None:
    """Let make read its file and print what it would run."""
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def python(words: Sequence[str]) -> None:
    """Look for the module, and for the key of a stage in the plan."""
    flag, module, *keys = words
    assert flag == "-m"
    assert importlib.util.find_spec(module)
    tables = plan.derive(params.load(ROOT / "params.yaml"))
    known: dict[str, Collection[str]] = {"export": tables.variants, "prune": tables.prune}
    known |= {"evaluate": tables.builds, "benchmark": tables.builds}
    if keys and module.startswith("stages."):
        assert keys[0] in known[module.removeprefix("stages.")]


PROGRAMS: dict[str, Callable[[Sequence[str]], None]] = {"kiln": kiln, "dvc": dvc, "make": make, "python": python}


def check(words: Sequence[str]) -> None:
    """Check a command line, of whatever program.

    Raises:
        BaseException: what the program's own parser raises.
    """
    program, *arguments = words
    assert program in PROGRAMS or program in SHELL, f"{program}: unknown; tests/test_docs.py has those that are known"
    if program in PROGRAMS:
        PROGRAMS[program](arguments)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_command_is_one_that_its_program_takes(page: Path):
    wrong = []
    for words in fenced_commands(page):
        try:
            check(words)
        except (Exception, SystemExit) as e:  # noqa: BLE001  of four programs
            wrong.append(f"{shlex.join(words)}: {type(e).__name__}: {e}")
    assert not wrong


@pytest.mark.parametrize(
    "line",
    [
        "kiln explode",
        "kiln add a --form b",
        "kiln data import a",
        "kiln repro --keep-gong",
        "dvc repo",
        "dvc repro report@cpu_int9",
        "dvc exp run -S quantize.recipes.int9.smooth=0.4",
        "make rapro",
        "python -m stages.exprt paraformer-dense",
        "python -m stages.export paraformer",
        "curl https://example.org",
    ],
)
def test_a_command_that_no_program_takes_is_found(line: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises((Exception, SystemExit)):
        check(shlex.split(line))
    capsys.readouterr()


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_command_named_in_a_sentence_exists(page: Path, capsys: pytest.CaptureFixture[str]):
    for span in spans(page):
        program, *arguments = span.split()
        if program in PROGRAMS and arguments and not _is_taken(program, arguments):
            flags = [word for word in arguments if word.startswith("--")]
            capsys.readouterr()
            assert _is_taken(program, [*(word for word in arguments if word not in flags), "--help"]), span
            assert set(flags) <= set(re.findall(r"--[\w-]+", capsys.readouterr().out)), span


def _is_taken(program: str, words: Sequence[str]) -> bool:
    try:
        PROGRAMS[program](words)
    except SystemExit as e:
        return e.code == 0  # as after --help
    except Exception:  # noqa: BLE001  of four programs
        return False
    return True


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_python_in_a_page_is_python(page: Path):
    for text in fences(page, "python"):
        ast.parse(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        if name.startswith("http"):
            continue
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), link
        assert not anchor or anchor in {_anchor(line) for line in _headings(place)}, link


def _headings(page: Path) -> list[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.findall(r"^#+ (.*)$", text, re.MULTILINE)


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_path_that_is_named_is_in_the_tree(page: Path):
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    tree = {str(place) for file in done.stdout.split() for place in (Path(file), *Path(file).parents)}
    for span in spans(page):
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span) and "/" in span and not span.startswith(MADE):
            assert span.strip("/") in tree, span


def section(page: Path, heading: str) -> list[list[str]]:
    """Give the shell blocks below a heading, each as its lines."""
    text = page.read_text(encoding="utf-8").split(f"\n{heading}\n")[1].split("\n## ")[0]
    return [block.splitlines() for kind, block in FENCE.findall(text) if kind == "sh"]


def test_two_builds_are_compared_as_the_guide_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commit, compare, _ = section(ROOT / "docs" / "ml-engineer.md", "## Compare two builds")
    project(tmp_path, monkeypatch)
    metrics, others = tmp_path / "reports" / "good" / "metrics.json", [tmp_path / "stages" / "dvc.lock"]
    others += [folder / "dvc.lock" for folder in (tmp_path / "stages" / "dag").iterdir()]
    for lock in others:
        lock.write_text("schema: '2.0'\nstages: {}\n")

    def build(value: float) -> None:
        write_json(metrics, {MODEL: {"offline_agreement": value}})
        shell("dvc commit --quiet --force report@good")

    build(0.99)
    for line in commit:
        shell(line)
    build(0.75)
    assert re.search(r"offline_agreement +0.99 +0.75 +-0.24", shell(compare[0]))


def project(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a repository whose target `good` has been measured and reported, and go there."""
    workspace.repository(place)
    workspace.make(place)
    monkeypatch.chdir(place)
    plan.write(params.load())
    for folder in ("searches", "pins", "benchmarks/gpu", "reports/failures", "reports/good"):
        (place / folder).mkdir(parents=True)
        (place / folder / "kept").touch()
    for name in ("index.html", "report.md"):
        (place / "reports" / "good" / name).write_text("<p>")
    shell("git add .dvc .dvcignore dvc.yaml stages params.yaml plan.yaml && git commit -m Kiln")


def shell(line: str) -> str:
    """Run a line of a page in the working folder and give what it printed."""
    git = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=os.environ | git)
    assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_is_a_front_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_the_chinese_readme_has_the_same_commands_headings_and_figures():
    english, chinese = ROOT / "README.md", ROOT / "README.zh-CN.md"
    assert list(fenced_commands(chinese)) == list(fenced_commands(english))
    assert len(_headings(chinese)) == len(_headings(english))
    figures = [re.findall(r"^\| `[\w-]+-cpu_\w+`.*$", page.read_text("utf-8"), re.MULTILINE) for page in PAGES[:2]]
    numbers = [[re.findall(r"[-+]?\d+\.\d+x?", row) for row in rows] for rows in figures]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) == 10


def test_the_glossary_has_the_verdicts_of_the_code():
    text = (ROOT / "docs" / "glossary.md").read_text()
    section = text.split("## Verdicts")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == set(COLOURS)


def test_each_word_of_the_glossary_is_explained_once():
    words = re.findall(r"^\| \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) == len(set(words)) > 40


def test_pre_commit_runs_what_make_lint_runs():
    config = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    done = subprocess.run(["make", "-n", "lint"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = [line for line in done.stdout.splitlines() if line.startswith(("ruff", "mypy"))]
    assert [hook["entry"].removeprefix(".venv/bin/") for hook in hooks] == wanted
    assert {hook["language"] for hook in hooks} == {"system"}


def test_a_tagged_version_is_in_the_changelog():
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    done = subprocess.run(["git", "tag"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert versions[0] == "Unreleased"
    assert {tag.removeprefix("v") for tag in done.stdout.split()} <= set(versions)
