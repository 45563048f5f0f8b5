# SPDX-License-Identifier: Apache-2.0
"""Uninstall leaves the node as it was found."""

import workloads
from cluster import (BIN_DIR, CACHE_DIR, CONF_DIR, cgroup2_root, NAMESPACE, PIN_DIR, RELEASE, STATE_DIR, get, kubectl, main_conflist, processes,
                     run)
from cases_basic import CONFLIST
from cases_faults import TILL
from tap import Suite, expect, until
from workloads import SERVICE, SHOP


def folder(path: object) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir()) if file.is_file()}


def add(suite: Suite) -> None:
    @suite.case("uninstall")
    def _() -> str:
        run("helm", "uninstall", RELEASE, "-n", NAMESPACE, "--wait", "--timeout", "3m", timeout=200)
        took = until(120, "the pods of Sidetrack to be gone", lambda: not get("pods", "-n", NAMESPACE)["items"])
        expect(not processes("sidetrack-agent") + processes("sidetrack-engine"), "processes are left")
        conf, plugins = folder(CONF_DIR), sorted(folder(BIN_DIR))
        expect(conf == {CONFLIST.name: main_conflist().encode()}, f"the configuration is not as it was found: {conf}")
        expect(plugins == ["bridge", "host-local", "loopback", "portmap"], f"plugins are not as they were found: {plugins}")
        expect(not PIN_DIR.exists(), f"pins are left: {list(PIN_DIR.rglob('*')) if PIN_DIR.exists() else ''}")
        until(10, "our programs to be off the root cgroup", lambda: " st_" not in run("bpftool", "cgroup", "show", cgroup2_root()))
        left = [str(path) for where in (STATE_DIR, CACHE_DIR) if where.exists() for path in where.iterdir()]
        expect(not left, f"files are left: {left}")
        return f"pods gone {took:.1f} s after helm; conflist byte for byte, no plugin, no pins, no programs on the root cgroup, no files"

    @suite.case("pods-after-uninstall")
    def _() -> str:
        pod = workloads.client(SHOP, "after")
        answer = kubectl("exec", "-n", SHOP, "after", "--", "curl", "-sS", "-m", "10", f"http://{SERVICE}/")
        expect("client=" in answer, answer)
        kubectl("delete", "namespace", SHOP, TILL, "legacy", "--ignore-not-found", "--timeout=120s", timeout=130)
        return f"{pod} started, got an answer, and pods from before were deleted"
