"""JUnit XML for CI pages: one test case per check and case, and one for what concerns a run as a whole."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from reports.dossier import Dossier, Run
from verify.gate import Finding
from verify.json_file import printable


def to_junit(dossier: Dossier) -> str:
    """The verdict as JUnit XML.

    A group fails if any of its rows does, with the gate's own sentence for each; a group in which every row lacks power
    is a skipped test case and not a passed one.

    Args:
        dossier: the runs; each becomes a test suite.

    Returns:
        An XML document.
    """
    root = ET.Element("testsuites", name="revdeq")
    for run in dossier.runs:
        _suite(root, run)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, run: Run) -> None:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in run.judgement.findings:
        case = "the run as a whole" if finding.measurement is None else finding.measurement.case
        groups.setdefault((finding.check, case), []).append(finding)
    suite = ET.SubElement(root, "testsuite", name=printable(run.label), timestamp=printable(run.results.started))
    failures = skipped = 0
    for (check, case), findings in groups.items():
        seconds = sum(one.measurement.seconds or 0.0 for one in findings if one.measurement is not None)
        element = ET.SubElement(
            suite, "testcase", classname=printable(check), name=printable(case), time=f"{seconds:.6f}"
        )
        failed = [one for one in findings if one.passed is False]
        if failed:
            failures += 1
            message = f"{len(failed)} of {len(findings)} fall short"
            ET.SubElement(element, "failure", message=message).text = _lines(failed)
        elif all(one.passed is None for one in findings):
            skipped += 1
            ET.SubElement(element, "skipped", message=printable(findings[0].why))
    if not groups:
        element = ET.SubElement(suite, "testcase", classname="run", name="the run as a whole", time="0")
        ET.SubElement(element, "failure", message="the run holds nothing that was judged").text = run.judgement.verdict
        failures = 1
    suite.set("tests", str(max(len(groups), 1)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", str(skipped))


def _lines(findings: Sequence[Finding]) -> str:
    # One line each; and XML 1.0 has no way to write most control characters, which a name or a reason may hold.
    return "\n".join(printable(finding.text()) for finding in findings)
