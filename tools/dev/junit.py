#!/usr/bin/env python3
"""JUnit reports of the test suites.

junit.py sum REPORT.xml…             prints what each failed test said, each report's counts, then `N passed, N failed` (and `, N skipped`) over all;
                                     exits 1 if a test failed or none ran
junit.py write REPORT.xml NAME:passed|failed…   writes a report for checks that write none themselves
junit.py again REPORT.xml                       prints the failed tests that may be tried once more, alone; exits 1 where there are none, or where more
                                                failed than a busy machine explains, or one with what no second run excuses (a sanitizer's report)
junit.py settle REPORT.xml AGAIN.xml            takes the outcome of that second run into the first one's report: what passed then is called unsteady
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as ElementTree


# Of these a second run says nothing: they are errors whether or not they show again.
NO_EXCUSE = re.compile(r"WARNING: ThreadSanitizer|ERROR: \w+Sanitizer|runtime error:|Falsifiable|STATOR_CHECK")
TRIED_AGAIN = 3  # at most


def failed(case):
    return case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail"


def cases(report):
    return list(ElementTree.parse(report).getroot().iter("testcase"))


def test_id(case):
    """As ctest (`-R`) or pytest is asked for it."""
    name, module = case.get("name"), case.get("classname") or ""
    return f"{module.replace('.', '/')}.py::{name}" if module.startswith("test.") else name


def again(report):
    broken = [case for case in cases(report) if failed(case)]
    texts = ["\n".join(e.text or "" for e in case.iter()) for case in broken]
    if not 0 < len(broken) <= TRIED_AGAIN or any(NO_EXCUSE.search(text) for text in texts):
        return 1
    print("\n".join(test_id(case) for case in broken))
    return 0


def settle(report, second):
    """Marks what passed at the second run; what it does not name has failed for good."""
    steady = {test_id(case) for case in cases(second) if not failed(case) and case.find("skipped") is None}
    tree = ElementTree.parse(report)
    left = 0
    for case in tree.getroot().iter("testcase"):
        if not failed(case):
            continue
        if test_id(case) not in steady:
            left += 1
            continue
        case.set("unsteady", "\n".join(said(case)))
        case.set("status", "run")
        for tag in ("failure", "error"):
            for e in case.findall(tag):
                case.remove(e)
    tree.write(report, encoding="utf-8", xml_declaration=True)
    return 1 if left else 0


def count(report):
    """(passed, failed, skipped) of one report; ctest and pytest mark outcomes a little differently."""
    passed = broken = skipped = 0
    for case in cases(report):
        if failed(case):
            broken += 1
        elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
            skipped += 1
        else:
            passed += 1
    return passed, broken, skipped


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
    for case in cases(report):
        test = f"--- {pathlib.Path(report).stem}: {case.get('classname') or ''} {case.get('name')}"
        if failed(case):
            print(f"{test} failed:")
            print("\n".join(said(case)), end="\n\n")
        elif case.get("unsteady") is not None:
            print(f"{test} is unsteady: it failed at first, and passed when it ran again alone:")
            print(case.get("unsteady"), end="\n\n")


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
    if len(arguments) == 2 and arguments[0] == "again":
        return again(arguments[1])
    if len(arguments) == 3 and arguments[0] == "settle":
        return settle(arguments[1], arguments[2])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
