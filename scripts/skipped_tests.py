# SPDX-License-Identifier: Apache-2.0
"""skipped_tests.py REPORT: which tests of ctest's JUnit report were skipped, and why, one a line: "NAME<tab>REASON". Of a test program of
many cases, one line for each case that was."""
import re
import sys
import xml.etree.ElementTree

# googletest: where, "Skipped", what the test said, and at last the case's name.
CASE = re.compile(r"^[^\n]*: Skipped\n(.*?)^\[  SKIPPED \] (\S+)", re.MULTILINE | re.DOTALL)


def reasons(output):
    cases = [f"{name}: {' '.join(said.split()) or 'no reason'}" for said, name in CASE.findall(output)]
    lines = output.strip().splitlines()
    return cases or lines[-1:] or ["no reason"]


def skipped(path):
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        if case.get("status") == "notrun":
            for reason in reasons(case.findtext("system-out") or ""):
                yield case.get("name"), reason


if __name__ == "__main__":
    for test, reason in skipped(sys.argv[1]):
        print(f"{test}\t{reason}")
