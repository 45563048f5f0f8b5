# SPDX-License-Identifier: Apache-2.0
"""check_deviations.py DOCUMENT ROOT TEST...: each deviation of the document is numbered in turn and has either a test dNN_... or
a line that begins with "Tested elsewhere:" or "Not tested:"; each such test has its deviation. What "Tested elsewhere:" names, in
backticks, are test programs of the tree ROOT, or tests and cases in its tests or in the self-test."""
import pathlib
import re
import sys


def names_elsewhere(section):
    paragraph = re.search(r"^Tested elsewhere:(.*?)(?:\n\n|\Z)", section, flags=re.MULTILINE | re.DOTALL)
    return None if paragraph is None else re.findall(r"`([^`]+)`", paragraph[1])


def exists(name, sources):
    """As `NAME.cpp`, TEST_F(Suite, NAME) or "NAME"."""
    pattern = re.compile(rf'(?:TEST\w*\(\w+, {re.escape(name)}\)|"{re.escape(name)}")')
    return any(path.stem == name or pattern.search(text) for path, text in sources.items())


def main(document_path, root, *test_paths):
    sources = {path: path.read_text(encoding="utf-8") for folder in ("tests", "agent/selftest")
               for path in pathlib.Path(root, folder).rglob("*.cpp")}
    with open(document_path, encoding="utf-8") as document:
        sections = re.split(r"^## (?=\d+\. )", document.read(), flags=re.MULTILINE)[1:]
    tested = set()
    for test_path in test_paths:
        with open(test_path, encoding="utf-8") as test:
            tested |= {int(number) for number in re.findall(r"TEST_F\(\w+, d(\d\d)_", test.read())}
    problems = []
    numbers = [int(section.split(".")[0]) for section in sections]
    if numbers != list(range(1, len(numbers) + 1)) or not numbers:
        problems.append(f"the deviations are not numbered 1, 2, ...: {numbers}")
    for number, section in zip(numbers, sections):
        excused = re.search(r"^(Tested elsewhere|Not tested):", section, flags=re.MULTILINE) is not None
        if excused == (number in tested):
            problems.append(f"deviation {number} must have a test d{number:02}_... or a line 'Tested elsewhere:' or 'Not tested:', not both")
    for number, section in zip(numbers, sections):
        names = names_elsewhere(section)
        if names == []:
            problems.append(f"deviation {number} is tested elsewhere, and no test is named")
        problems += [f"deviation {number} names `{name}`, which is no test" for name in names or [] if not exists(name, sources)]
    problems += [f"test d{number:02}_... has no deviation {number}" for number in sorted(tested - set(numbers))]
    for problem in problems:
        print(f"{document_path}: {problem}", file=sys.stderr)
    return 1 if problems else 0


sys.exit(main(*sys.argv[1:]))
