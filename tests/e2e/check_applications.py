# SPDX-License-Identifier: Apache-2.0
"""check_applications.py DOCUMENT TEST...: the table of applications in the document has a row for each test of the sources that
expects one to be adopted or refused, names it in its last column, and says of it what the test does: "yes", or the reasons."""
import pathlib
import re
import sys

TEST = re.compile(r"^TEST_F\((\w+), (\w+)\) \{(.*?)^\}", flags=re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| [^|]+ \| ([^|]+) \| `(Fast\w+\.\w+)` \|$", flags=re.MULTILINE)


def expectation(body):
    """What the row of a test must say; None: it is about no application."""
    if "expect_adopted(" in body:
        return "yes"
    if "expect_refused(" in body:
        return "no: " + ", ".join(re.findall(r'"(fp_\w+)"', body))
    return None


def main(document_path, *test_paths):
    tests = {f"{suite}.{name}": expectation(body)
             for path in test_paths for suite, name, body in TEST.findall(pathlib.Path(path).read_text(encoding="utf-8"))}
    rows = {name: said.replace("`", "") for said, name in ROW.findall(pathlib.Path(document_path).read_text(encoding="utf-8"))}
    problems = [f"{name} expects '{said}', and its row says '{rows.get(name)}'"
                for name, said in tests.items() if said is not None and rows.get(name) != said]
    problems += [f"{name} is in the table and is no such test" for name in rows if tests.get(name) is None]
    if not rows:
        problems.append("there is no table of applications")
    for problem in problems:
        print(f"{document_path}: {problem}", file=sys.stderr)
    return 1 if problems else 0


sys.exit(main(*sys.argv[1:]))
