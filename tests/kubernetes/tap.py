# SPDX-License-Identifier: Apache-2.0
"""Cases that run one after the other on one cluster, in the order in which they are written; TAP on standard output.

A case is a function that returns a sentence about what it saw, or raises Failed. Later cases go on after a failure: each
states what it needs.
"""

import fnmatch
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field


class Failed(Exception):
    """What was expected and what was seen."""


class Skipped(Exception):
    """Why a case cannot be run here."""


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise Failed(message)


def until(seconds: float, what: str, check: Callable[[], object], pause: float = 0.2) -> float:
    """Waits until `check` returns something true and returns how long that took."""
    begin = time.monotonic()
    last: object = None
    while True:
        try:
            last = check()
            if last:
                return time.monotonic() - begin
        except Failed as error:
            last = error
        if time.monotonic() - begin > seconds:
            raise Failed(f"not within {seconds:g} s: {what}; last seen: {last}")
        time.sleep(pause)


@dataclass
class Suite:
    cases: list[tuple[str, Callable[[], str]]] = field(default_factory=list)
    slow: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def case(self, name: str, slow: bool = False) -> Callable[[Callable[[], str]], Callable[[], str]]:
        """`slow`: takes half a minute or more; left out where only a part is wanted."""
        if slow:
            self.slow.add(name)

        def add(function: Callable[[], str]) -> Callable[[], str]:
            self.cases.append((name, function))
            return function
        return add

    def run(self, patterns: list[str], quick: bool, on_failure: Callable[[str], None]) -> int:
        """Runs the cases whose name matches one of the patterns; all if there is none; `quick`: without slow ones. The exit status."""
        chosen = [one for one in self.cases if not patterns or any(fnmatch.fnmatch(one[0], pattern) for pattern in patterns)]
        chosen = [one for one in chosen if not (quick and one[0] in self.slow)]
        print(f"1..{len(chosen)}", flush=True)
        for number, (name, function) in enumerate(chosen, 1):
            begin = time.monotonic()
            try:
                result = f"ok {number} - {name}: {function()}"
            except Skipped as reason:
                self.skipped.append(name)
                result = f"ok {number} - {name} # SKIP {reason}"
            except Exception as error:  # pylint: disable=broad-except
                self.failed.append(name)
                result = f"not ok {number} - {name}: {error}"
                if not isinstance(error, Failed):
                    traceback.print_exc()
            print(f"{result} ({time.monotonic() - begin:.1f} s)", flush=True)
            if result.startswith("not"):
                on_failure(name)
        print(f"# {len(chosen)} cases, {len(self.failed)} failed, {len(self.skipped)} skipped", flush=True)
        for name in self.failed:
            print(f"# failed: {name}", flush=True)
        return 1 if self.failed or not chosen else 0
