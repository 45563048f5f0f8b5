#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The alerts and the dashboard under Prometheus' own tool: every alert fires when it should, and not before or for less. Needs promtool."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from dataclasses import dataclass, field
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parents[2] / "helm/sidetrack"
RULES = CHART / "alerts/rules.yaml"
SKIPPED = 77


@dataclass
class Case:
    """Series of node n1, a sample each minute; the last minute at which the alert is quiet, the first at which it fires (-1: never)."""

    alert: str
    series: dict[str, str]
    quiet: int
    fires: int
    summary: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def buckets(metric: str, fast: str, slow: str) -> dict[str, str]:
    """Every observation is slower than `fast`."""
    return {f'{metric}_bucket{{le="{fast}"}}': "0+0x30", f'{metric}_bucket{{le="{slow}"}}': "0+1x30", f'{metric}_bucket{{le="+Inf"}}': "0+1x30"}


# A counter that rises once, in the fifth minute.
ONCE = "0+0x4 1+0x20"

CASES = [
    Case("SidetrackProgramNotAttached", {'sidetrack_program_attached{hook="connect4"}': "1 1 0+0x8"}, 2, 3,
         "The program at connect4 is not attached on n1", {"hook": "connect4"}),
    Case("SidetrackEngineDown", {"sidetrack_engine_up": "1 1 0+0x8"}, 2, 3, "No engine takes new connections on n1"),
    Case("SidetrackEngineFilesFull", {"sidetrack_engine_files_used": "810+0x9", "sidetrack_engine_files_limit": "1000+0x9"}, 4, 5,
         "The engine on n1 uses 81% of its descriptors"),
    Case("SidetrackEngineFilesFull", {"sidetrack_engine_files_used": "800+0x9", "sidetrack_engine_files_limit": "1000+0x9"}, 9, -1),
    Case("SidetrackPodsNotEnrolled", {'sidetrack_pods{state="drift"}': "2+0x9", 'sidetrack_pods{state="wanted"}': "9+0x9"}, 4, 5,
         "2 pods on n1 should be enrolled and are not", {"state": "drift"}),
    Case("SidetrackPodsCapturedLate", {"sidetrack_pods_captured_late_total": "0 0 1+0x9"}, 1, 2, "Pods on n1 ran before they were captured"),
    # Counted before the first scrape, by an agent that started at minute 0 or 1.5; quiet again when that is a quarter of an hour ago.
    Case("SidetrackPodsCapturedLate", {"sidetrack_pods_captured_late_total": "4+0x20", "process_start_time_seconds": "0+0x20"}, 15, 0,
         "Pods on n1 ran before they were captured"),
    Case("SidetrackPodsCapturedLate", {"sidetrack_pods_captured_late_total": "_x2 4+0x20", "process_start_time_seconds": "_x2 90+0x20"}, 1, 2,
         "Pods on n1 ran before they were captured"),
    Case("SidetrackPodsCapturedLate", {"sidetrack_pods_captured_late_total": "4+0x20", "process_start_time_seconds": "-3600+0x20"}, 20, -1),
    Case("SidetrackConnectionsLost", {'sidetrack_connections_total{namespace="shop",reason="engine_down",verdict="direct"}': "0+1x20"}, 5, 6,
         "Connections of shop are not redirected: engine_down", {"namespace": "shop", "reason": "engine_down"}),
    Case("SidetrackConnectionsLost", {'sidetrack_connections_total{namespace="shop",reason="engine_down_closed",verdict="refused"}': "0+1x20"},
         5, 6, "Connections of shop are not redirected: engine_down_closed", {"namespace": "shop", "reason": "engine_down_closed"}),
    Case("SidetrackConnectionsLost", {'sidetrack_connections_total{namespace="shop",reason="excluded_port",verdict="direct"}': "0+1x20"}, 20, -1),
    Case("SidetrackMapFull", {'sidetrack_map_entries{map="st_cidrs"}': "85+0x9", 'sidetrack_map_capacity{map="st_cidrs"}': "100+0x9"}, 4, 5,
         "BPF map st_cidrs is 85% full on n1", {"map": "st_cidrs"}),
    Case("SidetrackPolicyRejected", {"sidetrack_policy_rejected": "3+0x9"}, 4, 5,
         "3 values in labels, annotations or options could not be used on n1"),
    Case("SidetrackPolicySlow", buckets("sidetrack_policy_apply_seconds", "1", "2.5"), 10, 11,
         "The agent works 2.485s on a change of policy on n1"),
    Case("SidetrackPolicySlow", buckets("sidetrack_policy_apply_seconds", "0.5", "1"), 30, -1),
    Case("SidetrackRepairs", {"sidetrack_repairs_total": "0+1x20"}, 10, 11, "Something changes our programs or maps on n1"),
    Case("SidetrackRepairs", {"sidetrack_repairs_total": ONCE}, 20, -1),
    Case("SidetrackBypassOn", {"sidetrack_bypass": "1+0x20"}, 14, 15, "The emergency switch is on, on n1"),
    Case("SidetrackAgentRestarts", {'process_start_time_seconds{job="mesh/sidetrack"}': "1 1 2 3 4 4"}, 3, 4,
         "The agent on n1 restarts again and again", {"job": "mesh/sidetrack"}),
    Case("SidetrackAgentRestarts", {'process_start_time_seconds{job="node"}': "1 1 2 3 4 5"}, 5, -1),
    Case("SidetrackApiServerAway", {'sidetrack_watch_last_event_timestamp_seconds{resource="pods"}': "0+0x20"}, 11, 12,
         "The agent on n1 has not heard of pods for 10 minutes", {"resource": "pods"}),
    Case("SidetrackApiServerAway", {'sidetrack_watch_last_event_timestamp_seconds{resource="pods"}': "0+60x20"}, 20, -1),
    Case("SidetrackApiRequestsFail", {'sidetrack_watch_failures_total{resource="pods"}': "0+1x20"}, 10, 11,
         "Requests of n1 for pods keep failing", {"resource": "pods"}),
    Case("SidetrackApiRequestsFail", {'sidetrack_watch_failures_total{resource="pods"}': ONCE}, 20, -1),
    Case("SidetrackPluginFails", {'sidetrack_cni_requests_total{command="add",code="11"}': "0+1x20"}, 5, 6,
         "The CNI plugin on n1 is refused: add, code 11", {"command": "add", "code": "11"}),
    Case("SidetrackPluginFails", {'sidetrack_cni_requests_total{command="add",code="0"}': "0+1x20"}, 20, -1),
    Case("SidetrackPluginSlow", buckets("sidetrack_cni_request_duration_seconds", "0.5", "1"), 10, 11,
         "Pods wait 995ms for the agent on n1"),
    Case("SidetrackConflistFight", {'sidetrack_conflist_rewrites_total{cause="entry_missing"}': "0+1x20"}, 10, 11,
         "Another program keeps taking sidetrack-cni out of the CNI configuration on n1", {"cause": "entry_missing"}),
    Case("SidetrackConflistFight", {'sidetrack_conflist_rewrites_total{cause="entry_missing"}': ONCE}, 20, -1),
    Case("SidetrackEventsFail", {'sidetrack_events_total{outcome="failed"}': "0+1x20"}, 10, 11, "Events of n1 cannot be written",
         {"outcome": "failed"}),
    Case("SidetrackEventsFail", {'sidetrack_events_total{outcome="sent"}': "0+1x20"}, 20, -1),
]


def rules() -> dict[str, dict]:
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def on_node(series: str) -> str:
    return f'{series[:-1]},node="n1"}}' if series.endswith("}") else f'{series}{{node="n1"}}'


def as_promtool_reads_it(case: Case) -> dict:
    rule = rules()[case.alert]
    alert = {
        "exp_labels": {"node": "n1", "severity": rule["labels"]["severity"], **case.labels},
        "exp_annotations": {"summary": case.summary, "description": rule["annotations"]["description"].replace("{{ $labels.node }}", "n1")},
    }
    times = [{"eval_time": f"{case.quiet}m", "alertname": case.alert, "exp_alerts": []}]
    if case.fires >= 0:
        times.append({"eval_time": f"{case.fires}m", "alertname": case.alert, "exp_alerts": [alert]})
    else:
        # At no minute before, either.
        times = [{"eval_time": f"{minute}m", "alertname": case.alert, "exp_alerts": []} for minute in range(case.quiet + 1)]
    return {"name": f"{case.alert} {next(iter(case.series))}", "interval": "1m", "alert_rule_test": times,
            "input_series": [{"series": on_node(series), "values": values} for series, values in case.series.items()]}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)


class PromQL(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="sidetrack-promql-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def written(self, name: str, document: dict) -> str:
        (self.scratch / name).write_text(yaml.safe_dump(document))
        return str(self.scratch / name)

    def test_the_rules_are_valid(self):
        result = promtool("check", "rules", str(RULES))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn(f"{len(rules())} rules found", result.stdout)

    def test_every_alert_has_a_case_in_which_it_fires(self):
        self.assertEqual({case.alert for case in CASES if case.fires >= 0}, set(rules()))

    def test_alerts_fire_when_they_should_and_not_before(self):
        for case in CASES:
            with self.subTest(case.alert, series=next(iter(case.series))):
                file = self.written("test.yaml", {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [as_promtool_reads_it(case)]})
                result = promtool("test", "rules", file)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_every_expression_of_the_dashboard_can_be_read(self):
        panels = json.loads((CHART / "dashboards/sidetrack.json").read_text())["panels"]
        texts = [target["expr"] for panel in panels for target in panel.get("targets", [])]
        self.assertGreater(len(texts), 20)
        # What Grafana fills in.
        filled = [re.sub(r"\$\w+", "x", text.replace("$__rate_interval", "5m")) for text in texts]
        recorded = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(filled)]
        result = promtool("check", "rules", self.written("panels.yaml", {"groups": [{"name": "panels", "rules": recorded}]}))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


if __name__ == "__main__":
    if shutil.which("promtool") is None:
        print("skipped: no promtool here: Debian's package prometheus has it")
        sys.exit(SKIPPED)
    unittest.main()
