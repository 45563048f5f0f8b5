#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""run.py [--quick] [PATTERN...]: the cases on the cluster that tests/kubernetes/up.sh started; all, or those whose name matches; --quick
leaves out the slow ones."""

import sys

import cases_basic
import cases_fast
import cases_faults
import cases_pods
import cases_policy
import cases_restarts
import cases_sandboxed
import cases_uninstall
from cluster import NAMESPACE, kubectl
from tap import Suite

LOGS = ["logs", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=sidetrack", "--prefix"]


def show(name: str) -> None:
    """What a person wants to see first when a case has failed."""
    for command in (["get", "pods", "-A", "-o", "wide"], [*LOGS, "-c", "agent", "--previous", "--tail=2"],
                    [*LOGS, "--all-containers", "--tail=15"], ["get", "events", "-A", "--sort-by=.lastTimestamp"]):
        print("\n".join(f"#   {line}" for line in kubectl(*command, check=False).splitlines()[-25:]), flush=True)


def main() -> int:
    suite = Suite()
    cases_basic.add(suite)
    cases_pods.add(suite)
    cases_policy.add(suite)
    cases_fast.add(suite)
    cases_sandboxed.add(suite)
    cases_restarts.add(suite)
    cases_faults.add(suite)
    cases_uninstall.add(suite)
    return suite.run([word for word in sys.argv[1:] if word != "--quick"], "--quick" in sys.argv, show)


sys.exit(main())
