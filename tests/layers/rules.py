# SPDX-License-Identifier: Apache-2.0
"""Which folder may include what. Dependencies point one way: see ARCHITECTURE.md, "Folders".

ROOMS maps a path prefix (the longest that matches a file wins) to a Room. `project` are the prefixes that an include in
quotes may have; `system` are regular expressions that every include in angle brackets must match, `forbidden` ones that
none may match.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    project: tuple[str, ...]
    system: tuple[str, ...] = (r".*",)
    forbidden: tuple[str, ...] = (r"bpf/.*", r".*\.skel\.h")


SHARED = ("sidetrack/abi/", "sidetrack/choose.h", "sidetrack/decide.h", "sidetrack/fast_rules.h", "sidetrack/log/", "sidetrack/result.h", "sidetrack/unique_fd.h", "sidetrack/version.h")
PURE_FORBIDDEN = (
    r"bpf/.*", r".*\.skel\.h", r"sys/.*", r"unistd\.h", r"fcntl\.h", r"poll\.h", r"sched\.h", r"signal\.h",
    r"thread", r"mutex", r"shared_mutex", r"atomic", r"condition_variable", r"future", r"chrono", r"ctime", r"time\.h",
    r"boost/asio.*", r"boost/beast.*", r"spdlog/.*", r"filesystem", r"fstream",
)

ROOMS = {
    "include/sidetrack/abi/": Room(project=("sidetrack/abi/",), system=(r"linux/types\.h",)),
    "include/sidetrack/addr.h": Room(project=("sidetrack/abi/",), system=()),
    "include/sidetrack/choose.h": Room(project=("sidetrack/abi/", "sidetrack/decide.h"), system=()),
    "include/sidetrack/decide.h": Room(project=("sidetrack/abi/", "sidetrack/addr.h"), system=()),
    "include/sidetrack/fast_rules.h": Room(project=("sidetrack/abi/",), system=()),
    "include/sidetrack/result.": Room(project=("sidetrack/result.h",), forbidden=PURE_FORBIDDEN),
    "include/sidetrack/spelling.h": Room(project=(), forbidden=PURE_FORBIDDEN),
    "include/sidetrack/unique_fd.h": Room(project=(), system=(r"unistd\.h", r"utility")),
    "include/sidetrack/": Room(project=("sidetrack/",)),
    "bpf/": Room(
        project=("sidetrack/abi/", "sidetrack/choose.h", "sidetrack/decide.h", "sidetrack/fast_rules.h", "lib/"), system=(r"bpf/.*", r"linux/.*", r"std(bool|def|int)\.h"),
        forbidden=()),
    "agent/policy/": Room(
        project=("agent/policy/", "agent/kube/model.h", "sidetrack/abi/", "sidetrack/decide.h", "sidetrack/result.h", "sidetrack/spelling.h"),
        forbidden=PURE_FORBIDDEN),
    "agent/kube/": Room(project=("agent/kube/", "agent/sys/", "sidetrack/files/", "sidetrack/result.h", "sidetrack/unique_fd.h")),
    "agent/sys/": Room(project=("agent/sys/", "sidetrack/log/", "sidetrack/result.h", "sidetrack/unique_fd.h")),
    "agent/pods/": Room(
        project=("agent/pods/", "agent/sys/", "sidetrack/result.h", "sidetrack/unique_fd.h")),
    "agent/dataplane/": Room(project=("agent/dataplane/", "agent/sys/", "sidetrack/cgroup/", "sidetrack/files/", "sidetrack_bpf.skel.h", "sidetrack_netns.skel.h") + SHARED, forbidden=()),
    "agent/adopt/": Room(project=("agent/adopt/", "agent/dataplane/", "agent/pods/", "agent/sys/") + SHARED),
    "agent/selftest/": Room(project=("agent/selftest/", "agent/dataplane/", "agent/pods/", "sidetrack/cgroup/") + SHARED),
    "agent/engines/": Room(
        project=("agent/engines/", "agent/policy/", "agent/sys/", "sidetrack/wire/") + SHARED),
    "agent/cni/": Room(project=("agent/cni/", "agent/sys/", "sidetrack/files/", "sidetrack/wire/") + SHARED),
    "agent/reconcile/": Room(
        project=("agent/reconcile/", "agent/policy/", "agent/pods/", "agent/kube/", "agent/dataplane/", "agent/engines/",
                 "agent/sys/", "agent/admin/views.h") + SHARED),
    "agent/admin/": Room(
        project=("agent/admin/", "agent/reconcile/", "agent/dataplane/", "agent/policy/", "agent/kube/model.h",
                 "agent/sys/", "agent/metrics/") + SHARED),
    "agent/metrics/": Room(
        project=("agent/metrics/", "agent/admin/views.h", "agent/reconcile/", "agent/dataplane/", "agent/sys/") + SHARED),
    "agent/ctl/": Room(project=("agent/ctl/", "agent/admin/", "agent/dataplane/", "agent/policy/", "agent/sys/", "sidetrack/cgroup/", "sidetrack/cli/", "sidetrack/files/") + SHARED),
    # The one exception to "only agent/dataplane uses libbpf": doctor reads which programs, also of other products, sit on the
    # hooks, when there may be neither an agent nor a data plane of ours.
    "agent/ctl/hooks.": Room(
        project=("agent/ctl/",) + SHARED, forbidden=(r"bpf/libbpf\.h", r".*\.skel\.h")),
    "agent/": Room(project=("agent/", "sidetrack/")),
    "agent/main/": Room(project=("agent/", "cni/install/", "sidetrack/")),
    "engine/": Room(project=("engine/", "sidetrack/cgroup/", "sidetrack/cli/", "sidetrack/wire/") + SHARED),
    "probe/": Room(project=("probe/", "sidetrack/cli/", "sidetrack/result.h", "sidetrack/version.h")),
    "cni/": Room(
        project=("cni/json/", "cni/plugin/", "cni/versions.h", "sidetrack/wire/", "sidetrack/result.h", "sidetrack/spelling.h", "sidetrack/unique_fd.h",
                 "sidetrack/version.h")),
    # The agent's, never the plugin's.
    "cni/install/": Room(project=("cni/install/", "cni/json/", "cni/versions.h", "sidetrack/files/", "sidetrack/wire/", "sidetrack/result.h", "sidetrack/unique_fd.h")),
}
