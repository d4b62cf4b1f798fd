"""The gate's verdicts as JUnit XML, which any CI shows: a suite for each build, a case for each metric with a limit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from stages.gate import explain_metrics

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
COUNTS = {"tests": "testcase", "failures": "testcase/failure", "skipped": "testcase/skipped"}


def document(entries: Mapping[str, Mapping[str, Any]], problems: Sequence[str]) -> str:
    """Render builds and pipelines as JUnit XML that has a failure only if the gate is closed.

    entries: of reports/summary.json, by name. problems: what closes the gate beside the verdicts, one a line.
    """
    suites = ET.Element("testsuites", name="kiln gate")
    for name, entry in entries.items():
        suites.append(_suite(name, _cases(name, entry)))
    suites.append(_suite("gate", _gate(problems)))
    for attribute in COUNTS:
        suites.set(attribute, str(sum(int(suite.get(attribute, "0")) for suite in suites)))
    suites.set("errors", "0")
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return f"{text.decode()}\n"


def _suite(name: str, cases: Iterator[ET.Element]) -> ET.Element:
    suite = ET.Element("testsuite", name=name, errors="0")
    suite.extend(cases)
    for attribute, path in COUNTS.items():
        suite.set(attribute, str(len(suite.findall(path))))
    return suite


def _cases(name: str, entry: Mapping[str, Any]) -> Iterator[ET.Element]:
    """Yield a case for each metric with a limit, or a single one where no metric decided, such as a failed stage."""
    metrics = explain_metrics(entry)
    for metric, (verdict, line) in metrics.items():
        yield _case(name, metric, verdict, line, entry)
    if not metrics:
        yield _case(name, "verdict", entry["verdict"], entry["reason"], entry)


def _case(name: str, what: str, verdict: str, reason: str, entry: Mapping[str, Any]) -> ET.Element:
    """Return a case that passed, or else failed where the build is required and was skipped where it is not."""
    case = ET.Element("testcase", classname=name, name=what)
    if verdict != "pass" and entry["required"]:
        _add(case, "failure", f"{verdict}: {reason}", verdict)
    elif verdict != "pass":
        excuse = f" ({entry['excuse']})" if entry["excuse"] else ""
        _add(case, "skipped", f"not required{excuse}: {verdict}: {reason}", verdict)
    return case


def _gate(problems: Sequence[str]) -> Iterator[ET.Element]:
    """Yield one case that passed, or one that failed for each problem."""
    for number, problem in enumerate(problems, start=1):
        case = ET.Element("testcase", classname="gate", name=f"problem {number}")
        _add(case, "failure", problem, "closed")
        yield case
    if not problems:
        yield ET.Element("testcase", classname="gate", name="required builds and releases")


def _add(case: ET.Element, outcome: str, message: str, kind: str) -> None:
    plain = NOT_IN_XML.sub("?", message)
    ET.SubElement(case, outcome, type=kind, message=plain).text = plain
