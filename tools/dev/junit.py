#!/usr/bin/env python3
"""JUnit reports of the test suites.

junit.py sum REPORT.xml…             prints what each failed test said, each report's counts, then `N passed, N failed` (and `, N skipped`) over all;
                                     exits 1 if a test failed or none ran
junit.py write REPORT.xml NAME:passed|failed…   writes a report for checks that write none themselves
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


def count(report):
    """(passed, failed, skipped) of one report; ctest and pytest mark outcomes a little differently."""
    passed = failed = skipped = 0
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            failed += 1
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


# Where a failure begins in a test's output: gtest's, an assertion's or a sanitizer's report; and where it ends.
BEGINS = re.compile(r": Failure$|Assertion|WARNING: ThreadSanitizer|ERROR: \w+Sanitizer|runtime error:|Falsifiable|^E  ")
ENDS = re.compile(r"^\[ +(OK|FAILED|RUN) +\]|^SUMMARY: ")
LINES_OF_A_FAILURE, LINES_OF_A_TEST = 40, 120


def said(case):
    """The lines of a failed test's output that say why; logs drown them where a suite is one test. Else its last lines."""
    text = "\n".join(e.text or "" for e in case.iter() if e.tag in ("failure", "error", "system-out", "system-err"))
    lines, kept, left = text.splitlines(), [], 0
    for line in lines:
        if BEGINS.search(line):
            left = LINES_OF_A_FAILURE
        if left or line.startswith("[  FAILED  ]"):
            kept.append(line[:300])
            left = 0 if ENDS.search(line) else max(left - 1, 0)
    return (kept or [line[:300] for line in lines[-LINES_OF_A_FAILURE:]])[:LINES_OF_A_TEST]


def show_failures(report):
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            print(f"--- {pathlib.Path(report).stem}: {case.get('classname') or ''} {case.get('name')} failed:")
            print("\n".join(said(case)), end="\n\n")


def summarise(reports):
    for report in reports:
        try:
            show_failures(report)
        except (OSError, ElementTree.ParseError):
            pass  # said below
    total = [0, 0, 0]
    for report in reports:
        try:
            counts = count(report)
        except (OSError, ElementTree.ParseError) as e:
            print(f"{pathlib.Path(report).stem}: no readable report ({e})")
            counts = (0, 1, 0)
        print("{}: {} passed, {} failed, {} skipped".format(pathlib.Path(report).stem, *counts))
        total = [t + c for t, c in zip(total, counts)]
    tail = f", {total[2]} skipped" if total[2] else ""
    print(f"\n{total[0]} passed, {total[1]} failed{tail}")
    return 1 if total[1] or not total[0] else 0


def write(report, outcomes):
    root = ElementTree.Element("testsuite", name=pathlib.Path(report).stem)
    for outcome in outcomes:
        name, result = outcome.rsplit(":", 1)
        case = ElementTree.SubElement(root, "testcase", name=name)
        if result != "passed":
            ElementTree.SubElement(case, "failure", message=result)
    ElementTree.ElementTree(root).write(report, encoding="utf-8", xml_declaration=True)
    return 0


def main(arguments):
    if len(arguments) >= 1 and arguments[0] == "sum":
        return summarise(arguments[1:])
    if len(arguments) >= 2 and arguments[0] == "write":
        return write(arguments[1], arguments[2:])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
