"""`kiln gate --junit`: what a CI shows is what the gate decides, for every verdict, in the form that CIs read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from stages import summary
from stages.__main__ import main
from stages.core import layout, params, plan
from stages.core.errors import UserError
from stages.core.files import read_json, write_json
from stages.reporting import results
from tests import workspace
from tests.workspace import AGREEMENT, ERROR, WHY_ABSENT

FILE = Path("made/junit.xml")
BUILDS = tuple(workspace.GRAPHS)
OTHERS = "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip('why')\n"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a workspace in which all builds are required but the one that nothing here can run."""
    place = tmp_path_factory.mktemp("measured")
    workspace.make(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        p = params.load()
        entries = {name: results.build_entry(p, name) for name in plan.derive(p).builds}
        found: dict[str, Any] = summary.summary(entries, {}, results.environment())
    return found


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_json(layout.SUMMARY, measured)


def edit(**builds: dict[str, Any]) -> None:
    """Change the entries of builds in the summary, by target."""
    found = read_json(layout.SUMMARY)
    for name, change in builds.items():
        found["builds"][f"{workspace.MODEL}-{name}"] |= change
    write_json(layout.SUMMARY, found)


def gate() -> bool:
    """Run the command, and tell whether the gate is open."""
    try:
        main(["gate", "--junit", str(FILE)])
    except UserError:
        return False
    return True


def cases() -> dict[tuple[str, str], str]:
    """What became of each case: its outcome and message."""
    found = {}
    for case in ET.parse(FILE).iter("testcase"):  # noqa: S314  we wrote it
        outcomes = [f"{child.tag}: {child.get('message')}" for child in case]
        found[case.attrib["classname"].removeprefix(f"{workspace.MODEL}-"), case.attrib["name"]] = "".join(outcomes)
    return found


def test_a_case_for_each_build_and_metric_with_a_limit():
    assert not gate()
    unsure = "0.9875, drift -0.0125 [-0.0200, -0.0050], loss at most 0.01"
    assert cases() == {
        ("good", AGREEMENT): "",
        ("good", ERROR): "",
        ("bad", AGREEMENT): (
            f"failure: fail: {AGREEMENT}: 0.9700, drift -0.0300 [-0.0400, -0.0200], loss at most 0.01"
        ),
        ("bad", ERROR): "",
        ("unsure", AGREEMENT): f"failure: inconclusive: {AGREEMENT}: {unsure}",
        ("unsure", ERROR): "",
        ("absent", "verdict"): f"skipped: not required: unavailable: {WHY_ABSENT}",
        ("gate", "required builds and releases"): "",
    }


def test_what_need_not_pass_is_skipped_with_the_reason():
    edit(bad={"required": False, "excuse": "a miniature"}, unsure={"required": False})
    assert gate()
    found = cases()
    assert found["bad", AGREEMENT].startswith(f"skipped: not required (a miniature): fail: {AGREEMENT}: 0.97")
    assert found["unsure", AGREEMENT].startswith("skipped: not required: inconclusive: ")


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        pytest.param("failed", "export@a: model.pt is truncated", id="never-made"),
        pytest.param("fail", "its outputs were NaN or infinite in 2 recordings", id="not-finite"),
        pytest.param("baseline", "says nothing here: the fp32 model has f1 0.5", id="baseline"),
        pytest.param("inconclusive", "no metric is gated", id="nothing-gated"),
        pytest.param("failed", "export@a: <b> & \x1b[31m 'quotes'", id="not-for-xml"),
    ],
)
def test_where_no_metric_decided_the_build_is_one_case(verdict: str, reason: str):
    edit(good={"verdict": verdict, "reason": reason})
    assert not gate()
    assert cases()["good", "verdict"] == f"failure: {verdict}: {reason}".replace("\x1b", "?")
    assert ("good", AGREEMENT) not in cases()


@pytest.mark.parametrize("required", [*product([True, False], repeat=4)])
def test_a_failure_is_shown_only_if_the_gate_is_closed(required: tuple[bool, ...]):
    edit(**{name: {"required": wanted} for name, wanted in zip(BUILDS, required, strict=True)})
    is_open = gate()
    assert is_open == (not any(said.startswith("failure") for said in cases().values()))
    assert is_open == (required == (True, False, False, False))


def test_a_touched_release_is_a_failure():
    edit(bad={"required": False}, unsure={"required": False})
    (layout.RELEASE / "stranger").mkdir(parents=True)
    assert not gate()
    assert cases()["gate", "problem 1"] == f"failure: {layout.RELEASE}/stranger: extra: no build of that name passed"


def test_a_file_that_cannot_be_written_and_a_summary_of_another_kiln_are_one_line():
    FILE.mkdir(parents=True)
    with pytest.raises(UserError, match=rf"^--junit {FILE}: cannot be written "):
        main(["gate", "--junit", str(FILE)])
    write_json(layout.SUMMARY, {"builds": {}})
    with pytest.raises(UserError, match=r"summary\.json is not what this Kiln writes: KeyError: 'pipelines'"):
        main(["gate"])


def shape(root: ET.Element) -> Iterator[tuple[str, str]]:
    """Yield each element by its path, and each attribute of it."""
    parents = {child: parent for parent in root.iter() for child in parent}
    for element in root.iter():
        path, above = element.tag, element
        while above in parents:
            above = parents[above]
            path = f"{above.tag}/{path}"
        yield path, ""
        yield from ((path, name) for name in element.attrib)


def test_the_form_is_that_of_pytest_which_every_ci_reads(tmp_path: Path):
    (tmp_path / "test_others.py").write_text(OTHERS)
    options = ["-q", "-p", "no:cacheprovider", "--junitxml=theirs.xml", "test_others.py"]
    subprocess.run([sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, check=False)
    theirs = set(shape(ET.parse("theirs.xml").getroot()))  # noqa: S314  pytest wrote it
    gate()
    ours = ET.parse(FILE).getroot()  # noqa: S314
    totals = {
        (ours.tag, name) for name in ("tests", "failures", "skipped", "errors")
    }  # of all suites, as in JUnit's own
    kinds = {("testsuites/testsuite/testcase/failure", "type")}
    assert set(shape(ours)) - totals - kinds <= theirs
    for suite in ours:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) > 0
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))


@pytest.mark.parametrize("place", ["reports", "reports/summary.json/junit.xml"], ids=["a folder", "below a file"])
def test_a_place_where_no_file_can_be_is_refused_in_one_line(place: str):
    with pytest.raises(UserError, match=rf"^--junit {place}: cannot be written \("):
        main(["gate", "--junit", place])
