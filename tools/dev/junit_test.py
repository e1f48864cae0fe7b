#!/usr/bin/env python3
"""junit.py counts what ctest, pytest and ./dev itself write, and its summary says failure when it must."""

import contextlib
import io
import pathlib
import tempfile
import unittest

import junit

CTEST = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux-clang" tests="4" failures="1" disabled="0" skipped="1">
  <testcase name="base" classname="base" time="0.1" status="run"><system-out/></testcase>
  <testcase name="net" classname="net" time="0.1" status="fail"><failure message=""/><system-out/></testcase>
  <testcase name="model" classname="model" time="0" status="notrun"><skipped message="x"/></testcase>
  <testcase name="gone" classname="gone" time="0" status="fail"><system-out/></testcase>
</testsuite>"""
PYTEST = """<?xml version="1.0"?><testsuites><testsuite name="pytest" errors="1" failures="0" skipped="0" tests="2">
  <testcase classname="t" name="a" time="0.1"/>
  <testcase classname="t" name="b" time="0.1"><error message="boom"/></testcase>
</testsuite></testsuites>"""


class JunitTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    @staticmethod
    def summary(*reports):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            rc = junit.main(["sum", *reports])
        return rc, out.getvalue().splitlines()[-1]

    def test_counts_of_ctest_and_pytest(self):
        self.assertEqual(junit.count(self.file("debug.xml", CTEST)), (1, 2, 1))
        self.assertEqual(junit.count(self.file("e2e.xml", PYTEST)), (1, 1, 0))

    def test_summary_adds_up_and_fails(self):
        reports = self.file("debug.xml", CTEST), self.file("e2e.xml", PYTEST)
        self.assertEqual(self.summary(*reports), (1, "2 passed, 3 failed, 1 skipped"))

    def test_written_reports_are_read_back(self):
        report = str(self.folder / "fuzz.xml")
        junit.main(["write", report, "http_fuzz:passed", "json_fuzz:passed"])
        self.assertEqual(self.summary(report), (0, "2 passed, 0 failed"))

    def test_the_summary_says_why_a_suite_failed(self):
        log = ["info  noise"] * 500
        lines = [*log, "a_test.cc:7: Failure", "Expected equality of these values:", "  1", "[  FAILED  ] A.B (0 ms)", *log]
        report = CTEST.replace(
            '<failure message=""/><system-out/>', '<failure message=""/><system-out>' + "\n".join(lines) + "</system-out>"
        )
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            junit.main(["sum", self.file("debug.xml", report)])
        self.assertIn("a_test.cc:7: Failure\nExpected equality", out.getvalue())
        self.assertNotIn("noise", out.getvalue())

    def again(self, report):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            rc = junit.main(["again", report])
        return rc, out.getvalue().split()

    def test_what_may_be_tried_again(self):
        self.assertEqual(self.again(self.file("debug.xml", CTEST)), (0, ["net", "gone"]))
        e2e = PYTEST.replace('classname="t" name="b"', 'classname="test.e2e.test_x" name="b[shm]"')
        self.assertEqual(self.again(self.file("e2e.xml", e2e)), (0, ["test/e2e/test_x.py::b[shm]"]))
        steady = PYTEST.replace('<error message="boom"/>', "")
        self.assertEqual(self.again(self.file("e2e.xml", steady)), (1, []))

    def test_many_failures_and_sanitizers_are_no_bad_luck(self):
        many = "".join(f'<testcase name="t{i}" status="fail"/>' for i in range(junit.TRIED_AGAIN + 1))
        self.assertEqual(self.again(self.file("many.xml", f"<testsuite>{many}</testsuite>")), (1, []))
        for report in ("WARNING: ThreadSanitizer: data race", "ERROR: AddressSanitizer: heap-use-after-free", "Falsifiable after 3 tests"):
            text = CTEST.replace('<failure message=""/><system-out/>', f"<failure/><system-out>{report}</system-out>")
            self.assertEqual(self.again(self.file("debug.xml", text)), (1, []), report)

    def test_a_second_run_settles_it(self):
        report = self.file("debug.xml", CTEST)
        second = '<testsuite><testcase name="net" status="run"/><testcase name="gone" status="fail"/></testsuite>'
        self.assertEqual(junit.main(["settle", report, self.file("again.xml", second)]), 1)
        self.assertEqual(self.summary(report), (1, "2 passed, 1 failed, 1 skipped"))
        second = second.replace('"fail"', '"run"')
        self.assertEqual(junit.main(["settle", report, self.file("again.xml", second)]), 0)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertEqual(junit.main(["sum", report]), 0)
        self.assertIn("debug: net net is unsteady", out.getvalue())
        self.assertIn("3 passed, 0 failed, 1 skipped", out.getvalue())

    def test_who_does_not_run_again_has_failed(self):
        report = self.file("debug.xml", CTEST)
        self.assertEqual(junit.main(["settle", report, self.file("again.xml", "<testsuite/>")]), 1)
        self.assertEqual(self.summary(report)[0], 1)

    def test_no_test_at_all_is_a_failure(self):
        report = str(self.folder / "fuzz.xml")
        junit.main(["write", report])
        self.assertEqual(self.summary(report)[0], 1)

    def test_a_broken_report_is_a_failure(self):
        self.assertEqual(self.summary(self.file("x.xml", "<testsuite>")), (1, "0 passed, 1 failed"))


if __name__ == "__main__":
    unittest.main()
