"""The CI files: for each event their shell steps run in a clone, and do what the event asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from stages.core.files import read_json, write_json
from tests.ci import jobs
from tests.ci.jobs import GITLAB, STEPS, Job
from tests.hub import Hub
from tests.workspace import ROOT


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """A hub and an index that answer."""
    with Hub() as hub:
        yield {"MODELSCOPE_ENDPOINT": hub.url, "PIP_INDEX_URL": f"{hub.url}/simple", "NO_PROXY": "127.0.0.1"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project."""
    place = tmp_path_factory.mktemp("project")
    jobs.make(place, tmp_path_factory.mktemp("remote"))
    return place


@pytest.fixture(scope="module")
def main_branch(project: Path, served: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job of a push to the main branch."""
    job = jobs.clone(project, tmp_path_factory.mktemp("main") / "clone", served, skipped="publish")
    job.github("push")
    return job


@pytest.fixture
def request_(project: Path, main_branch: Job, served: dict[str, str], tmp_path: Path) -> Job:
    """A clone with a change that fails the gate, and what the cache kept of the main branch."""
    job = jobs.clone(project, tmp_path / "clone", served)
    found = read_json(job.place / "measured.json")
    found["builds"]["fsmn_vad-good"] |= {"verdict": "failed", "reason": "export@a: it broke"}
    write_json(job.place / "measured.json", found)
    shutil.copytree(main_branch.place / "main-reports", job.place / "main-reports")
    return job


def test_a_push_builds_judges_and_shares(main_branch: Job, project: Path):
    assert set(main_branch.statuses.values()) == {0}, (main_branch.place / "log").read_text()
    assert main_branch.ran() == ["evaluate", "pipeline", "summary"]
    assert ET.parse(main_branch.place / "reports" / "junit.xml").getroot().get("failures") == "0"  # noqa: S314
    assert (main_branch.place / "main-reports" / "summary.json").is_file()
    assert main_branch.calls("dvc").count("push --run-cache") == 1
    assert main_branch.calls("gh") == [] == [call for call in main_branch.calls("kiln") if "publish" in call]
    assert project.exists()


def test_a_pull_request_says_what_differs_though_its_gate_is_closed(request_: Job):
    request_.github("pull_request")
    assert {name for name, status in request_.statuses.items() if status} == {"judge"}
    posted = (request_.place / "posted").read_text()
    assert "| `fsmn_vad-good` | pass → **failed** |" in posted
    assert posted == (request_.place / "page").read_text()
    assert request_.calls("gh") == ["pr comment of GitHub --edit-last --create-if-none --body-file comparison.md"]
    assert "push --run-cache" not in request_.calls("dvc")
    assert ET.parse(request_.place / "reports" / "junit.xml").getroot().get("failures") == "1"  # noqa: S314


def test_a_comment_is_cut_to_what_github_takes(request_: Job):
    rows = [f"| `build-{number}` | pass → **失败** |" for number in range(3000)]
    (request_.place / "comparison.md").write_text("\n".join(rows))
    request_.variables["PULL_REQUEST"] = "7"
    jobs.program(
        request_.place / "tools" / "gh", request_.place / "calls", 'for last; do :; done; cat "$last" > posted'
    )
    assert request_.shell(".ci/comment comparison.md") == 0
    posted = (request_.place / "posted").read_text()
    assert 60_000 < len(posted.encode()) < 65_536
    *whole, _, last = posted.splitlines()
    assert whole == rows[: len(whole)]
    assert last == "This is not all: comparison.md of the artifacts has the rest."


def test_a_build_that_left_no_report_is_compared_in_words(request_: Job):
    (request_.place / "measured.json").write_text("{")  # of which the stages make reports/summary.json
    request_.github("pull_request")
    assert {name for name, status in request_.statuses.items() if status} == {"build", "judge"}
    assert (request_.place / "posted").read_text() == "Nothing to compare: see the log.\n"


def test_cml_comments_where_it_is_installed(request_: Job):
    jobs.program(request_.place / "tools" / "cml", request_.place / "calls", "")
    (request_.place / "comparison.md").write_text("nothing")
    assert request_.shell(".ci/comment comparison.md") == 0
    assert request_.calls("cml") == ["comment update comparison.md"]
    assert request_.calls("gh") == request_.calls("curl") == []


@pytest.mark.usefixtures("main_branch")
def test_a_tag_restores_what_the_main_branch_built_and_publishes_it(
    project: Path, served: dict[str, str], tmp_path: Path
):
    job = jobs.clone(project, tmp_path / "clone", served)
    job.github("tag")
    assert set(job.statuses.values()) == {0}, (job.place / "log").read_text()
    assert job.ran() == []
    assert job.calls("kiln")[-1] == "publish --version v1.2.0"
    assert job.shell('git config --local user.email && git commit-tree "HEAD^{tree}" -m release') == 0
    assert not (job.place / "main-reports").exists()


@pytest.mark.usefixtures("main_branch")
def test_each_night_accuracy_is_measured_again_of_what_was_restored(
    project: Path, served: dict[str, str], tmp_path: Path
):
    job = jobs.clone(project, tmp_path / "clone", served)
    job.github("schedule")
    assert set(job.statuses.values()) == {0}, (job.place / "log").read_text()
    assert job.ran() == ["evaluate", "pipeline"]
    assert (job.place / "reports" / "junit.xml").is_file()


@pytest.fixture
def gitlab(project: Path, tmp_path: Path) -> Job:
    """A clone for GitLab's jobs, with what is set for each of them."""
    job = jobs.clone(project, tmp_path / "clone", {"KEEP": "pull", "CI_MERGE_REQUEST_IID": ""})
    jobs.stub(job)
    return job


BUILT, JUDGED = ["doctor", "repro --pull"], "gate --junit reports/junit.xml"


def test_gitlab_builds_the_main_branch_and_shares(gitlab: Job):
    gitlab.variables["KEEP"] = GITLAB["build"]["rules"][1]["variables"]["KEEP"]
    assert gitlab.gitlab("build") == gitlab.statuses["after"] == 0
    assert gitlab.calls("kiln") == [*BUILT, JUDGED]
    assert gitlab.calls("dvc")[-1] == "push --run-cache"
    assert (gitlab.place / "main-reports").is_dir()
    assert gitlab.calls("curl") == []


def test_gitlab_says_what_a_merge_request_changes_though_its_gate_is_closed(gitlab: Job):
    ids = {"CI_API_V4_URL": "here", "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7"}
    gitlab.variables |= {**ids, "KILN_TOKEN": "t"}
    (gitlab.place / "main-reports").mkdir()
    closed = 'case "$1" in repro|gate) exit 1;; esac; echo differs'
    jobs.program(gitlab.place / ".venv/bin/kiln", gitlab.place / "calls", closed)
    assert gitlab.gitlab("build") == 1
    assert gitlab.statuses["after"] == 0
    assert gitlab.calls("kiln") == [*BUILT, JUDGED, "compare main-reports reports"]
    assert (gitlab.place / "posted").read_text() == "differs\n"
    [call] = gitlab.calls("curl")
    assert call.endswith("--data-urlencode body@comparison.md here/projects/3/merge_requests/7/notes")
    assert "push --run-cache" not in gitlab.calls("dvc")


def test_gitlab_without_a_token_says_what_is_missing(gitlab: Job):
    gitlab.variables["CI_MERGE_REQUEST_IID"] = "7"  # of a fork, which has no variables of ours
    gitlab.gitlab("build")
    assert "KILN_TOKEN: docs/ci.md says what it is" in (gitlab.place / "log").read_text()
    assert gitlab.calls("curl") == []


def test_gitlab_publishes_a_tag(gitlab: Job):
    gitlab.variables["CI_COMMIT_TAG"] = "v1.2.0"
    assert gitlab.gitlab("publish") == 0
    assert gitlab.calls("kiln")[:-1] == [*BUILT, "publish --version v1.2.0"]


def test_gitlab_judges_again_each_night_as_github_does(gitlab: Job):
    assert gitlab.gitlab("nightly") == 0
    [again] = [step["run"] for step in STEPS if step.get("if") == "github.event_name == 'schedule'"]
    assert gitlab.calls("kiln")[:4] == [*BUILT, *(line.removeprefix("kiln ") for line in again.splitlines())]


def test_without_a_remote_the_cache_of_the_ci_is_all_there_is(gitlab: Job):
    jobs.program(gitlab.place / ".venv/bin/dvc", gitlab.place / "calls", '[ "$1" != remote ]')
    gitlab.variables["KEEP"] = "pull-push"
    assert gitlab.gitlab("build") == 0
    assert gitlab.calls("kiln")[:2] == ["doctor", "repro"]
    assert gitlab.calls("dvc") == ["remote default", "remote default"]


def test_an_installation_whose_downloads_are_gone_gets_the_older_runtimes_again(gitlab: Job):
    def made() -> str:
        done = subprocess.run(
            ["make", "--dry-run", ".venv/runtime"], cwd=gitlab.place, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "touch .venv/older" not in made()
    shutil.rmtree(gitlab.place / ".cache")  # as where a CI restores .venv and not .cache
    assert "touch .venv/older" in made()


def test_each_action_is_pinned_and_no_expression_is_in_a_shell():
    for step in STEPS:
        assert re.fullmatch(r"actions/[\w/-]+@(v\d+|[0-9a-f]{40})", step.get("uses", "actions/none@v1"))
        assert "${{" not in step.get("run", "")  # a title of a pull request could be a command
        assert len(step.get("run", "").splitlines()) <= 3
    for name in ("before_script", "script", "after_script"):
        lines = [line for job in GITLAB.values() if isinstance(job, dict) for line in job.get(name, [])]
        assert [line for line in lines if len(line.splitlines()) > 3] == []


def test_what_is_saved_is_what_is_restored():
    restored, saved = (
        [step["with"]["path"] for step in STEPS if step.get("uses", "").startswith(f"actions/cache/{what}")]
        for what in ("restore", "save")
    )
    assert restored == saved
    assert len(saved) == 1


def test_the_pythons_are_the_locks():
    [python] = [step["with"]["python-version"] for step in STEPS if "setup-python" in step.get("uses", "")]
    assert GITLAB["image"] == f"python:{python}"
    assert f"--python-version {python} " in (ROOT / "Makefile").read_text()  # of `make lock`
