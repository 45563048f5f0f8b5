# SPDX-License-Identifier: Apache-2.0
"""What scripts/skipped_tests.py makes of ctest's report."""
import subprocess
import sys
import tempfile

SCRIPT = sys.argv[1]
REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite tests="4">
  <testcase name="Ran.fine" status="run"><system-out>x.cpp:3: Skipped nothing</system-out></testcase>
  <testcase name="apps.Rust" status="notrun"><skipped message="SKIP_REGULAR_EXPRESSION_MATCHED"/><system-out>[ RUN      ] Rust.one
../x.cpp:3: Skipped
no cargo &lt;here&gt;

[  SKIPPED ] Rust.one (0 ms)
[ RUN      ] Rust.two
[       OK ] Rust.two (3 ms)
[ RUN      ] Rust.three
../x.cpp:9: Skipped
two
lines
[  SKIPPED ] Rust.three (0 ms)
</system-out></testcase>
  <testcase name="demo" status="notrun"><system-out>first
demo: needs root
</system-out></testcase>
  <testcase name="mute" status="notrun"><system-out></system-out></testcase>
</testsuite>
"""
EXPECTED = """apps.Rust\tRust.one: no cargo <here>
apps.Rust\tRust.three: two lines
demo\tdemo: needs root
mute\tno reason
"""

with tempfile.NamedTemporaryFile("w", suffix=".xml") as report:
    report.write(REPORT)
    report.flush()
    said = subprocess.run([sys.executable, "-B", SCRIPT, report.name], capture_output=True, text=True, check=True).stdout
if said != EXPECTED:
    sys.exit(f"it said\n{said}instead of\n{EXPECTED}")
