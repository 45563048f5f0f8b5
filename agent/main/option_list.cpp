// SPDX-License-Identifier: Apache-2.0
#include "agent/main/option_list.h"

#include <unistd.h>

#include <cstdlib>
#include <sstream>

#include <boost/program_options.hpp>

namespace sidetrack::agent {

namespace po = boost::program_options;

namespace {

std::string default_node() {
  if (const char* name = std::getenv("NODE_NAME"); name != nullptr && *name != '\0') {
    return name;
  }
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

std::string default_namespace() {
  const char* name = std::getenv("POD_NAMESPACE");
  return name == nullptr ? "" : name;
}

constexpr unsigned kLineLength = 118;
constexpr unsigned kTextWidth = 60;

auto text_value(const char* value) {
  return po::value<std::string>()->default_value(value);
}

// Of those that ask the API server.
void add_api_options(po::options_description& options) {
  options.add_options()(
      "kubeconfig", po::value<std::string>(),
      "how to reach the API server (source kubernetes); default this pod's service account")(
      "daemonset", po::value<std::string>(),
      "our own DaemonSet: when it is gone as we end, everything is taken back, the CNI "
      "configuration too")(
      "namespace", po::value<std::string>()->default_value(default_namespace(), "$POD_NAMESPACE"),
      "our own namespace: never enrolled");
}

po::options_description run_options() {
  po::options_description options("Options of run", kLineLength, kTextWidth);
  options.add_options()("source", po::value<std::string>(),
                        "files, kubernetes: where desired state comes from; default files when "
                        "--objects is given, else kubernetes")(
      "objects", po::value<std::string>(),
      "folder of Kubernetes objects as *.yaml, *.yml, *.json (source files)");
  add_api_options(options);
  options.add_options()("cni-binary", po::value<std::string>(),
                        "sidetrack-cni to be copied there; default the one beside this program")(
      "cni-on-agent-down", text_value("allow"),
      "allow, deny: pods of enrolled namespaces start while no agent answers the plugin")(
      "cni-deny-for", text_value("1h"),
      "how long they do not start with deny after the last sign of an agent: 1m to 8760h, or 0s, "
      "for ever")("cni-timeout", text_value("2s"), "the plugin's time for a pod, 50ms to 1m")(
      "cni-log-file", po::value<std::string>(),
      "where the plugin notes faults and pods that started before they were enrolled, or off; "
      "default cni.log in --cache-dir")("cni-status-checks-agent", text_value("off"),
                                        "on, off: without a ready agent the runtime's network "
                                        "counts as broken, and the node as not ready")(
      "node",
      po::value<std::string>()->default_value(default_node(), "$NODE_NAME, else the host name"),
      "pods of this node are enrolled")("standby", po::bool_switch(),
                                        "another agent runs: wait for it to end, then take over")(
      "engine", text_value("embedded"), "embedded, external=ADDR:PORT[,ADDR:PORT], none")(
      "listener-ports", text_value("15900-15999"), "where in-pod listeners may be")(
      "listeners-per-pod", po::value<int>()->default_value(4),
      "1 to 8, each with its own space of local ports")(
      "exclude-outbound-ports", po::value<std::string>(),
      "never redirected, in any namespace: 8500,8600-8700")(
      "exclude-outbound-cidrs", po::value<std::string>(),
      "never redirected: 10.9.0.0/16,fd00::/8,10.0.0.0/8:443")(
      "include-outbound-ports", po::value<std::string>(), "if present, only these are redirected")(
      "include-outbound-cidrs", po::value<std::string>(), "if present, only these are redirected")(
      "compat", po::value<std::string>(), "honour annotations of istio,linkerd,kuma")(
      "fast-path", text_value("auto"),
      "auto, uncharged, off: whether sockets of this node may skip TCP")(
      "fast-path-window", text_value("1MiB"), "unread bytes per direction that may skip TCP")(
      "fast-path-round-trips", po::value<int>()->default_value(4),
      "after how many a connection is looked at")("fast-path-probation", text_value("30s"),
                                                  "how long a pod with traffic is observed before")(
      "fast-path-loopback", text_value("off"), "on, off: connections inside one pod, too")(
      "fast-path-sentinel", text_value("auto"),
      "auto, fentry, tracepoint, off: what sees calls that must not meet the fast path; off = none "
      "of it")("http", text_value("127.0.0.1:15880"),
               "ADDR:PORT of /metrics, /healthz and /readyz, or off")(
      "log-level", text_value("info"), "error, warn, info, debug")("log-format", text_value("text"),
                                                                   "text (key=value) or json");
  return options;
}

po::options_description uninstall_options() {
  po::options_description options("Options of uninstall", kLineLength, kTextWidth);
  options.add_options()("drain", text_value("30s"),
                        "how long redirected connections may still run")(
      "keep-conflist", po::bool_switch(),
      "leave sidetrack-cni in the CNI configuration, where an agent is to come back");
  return options;
}

po::options_description leave_options() {
  po::options_description options("Options of leave", kLineLength, kTextWidth);
  add_api_options(options);
  return options;
}

po::options_description self_test_options() {
  po::options_description options("Options of self-test", kLineLength, kTextWidth);
  options.add_options()("output,o", text_value("table"), "table or json")(
      "netns", po::value<std::string>(),
      "file of the network namespace to use, in which nobody else is; default one of its own");
  return options;
}

}  // namespace

po::options_description common_options() {
  po::options_description options(
      "Options (each also as SIDETRACK_OPTION_NAME in the environment, and in --config FILE)",
      kLineLength, kTextWidth);
  options.add_options()("config", po::value<std::string>(), "file of `option = value` lines")(
      "state-dir", text_value("/run/sidetrack"), "sockets and lock")(
      "cache-dir", text_value("/var/lib/sidetrack"), "what must survive a reboot")(
      "pin-dir", text_value("/sys/fs/bpf/sidetrack"), "pinned programs, maps and links")(
      "cgroup", po::value<std::string>(), "where the programs attach; default the cgroup2 root")(
      "cni-conf-dir", po::value<std::string>(),
      "folder of CNI configurations that sidetrack-cni is put into, such as /etc/cni/net.d; "
      "default none")("cni-bin-dir", text_value("/opt/cni/bin"),
                      "where the runtime looks for plugins")(
      "engine-cgroup", po::value<std::string>(),
      "cgroup of the engine alone; default made by the agent for embedded, in a pod each engine "
      "container's own");
  return options;
}

po::options_description options_of(Command command) {
  return command == Command::kRun         ? run_options()
         : command == Command::kUninstall ? uninstall_options()
         : command == Command::kLeave     ? leave_options()
                                          : self_test_options();
}

po::options_description every_option() {
  po::options_description options;
  options.add(common_options())
      .add(run_options())
      .add(uninstall_options())
      .add(self_test_options());
  return options;
}

std::string help_text(Command command) {
  std::ostringstream text;
  if (command == Command::kRun) {
    text << "sidetrack-agent run [options]: follows Kubernetes objects, of the API or in a folder "
            "(--objects DIR), and keeps the\nkernel in step.\n"
            "SIGHUP reads the objects again, and from --config FILE log-level, compat, fast-path "
            "and the outbound lists; other\noptions need a restart. SIGTERM ends it, and what is "
            "pinned goes on enforcing.\n\n"
         << run_options() << "\n"
         << common_options()
         << "\nExample: sidetrack-agent run --objects /etc/sidetrack/objects --node worker-1\n";
  } else if (command == Command::kUninstall) {
    text << "sidetrack-agent uninstall [options]: takes back what an agent with the same --pin-dir "
            "made.\n"
            "New connections go direct at once; open ones may run until --drain is over, then "
            "programs and maps go.\n\n"
         << uninstall_options() << "\n"
         << common_options()
         << "\nExample: sidetrack-agent uninstall --pin-dir /sys/fs/bpf/sidetrack --drain 1m\n";
  } else if (command == Command::kLeave) {
    text << "sidetrack-agent leave [options]: for a pod of the agent that is about to be ended "
            "(preStop); other options as the agent\nhas them, from its --config FILE and the "
            "environment.\n"
            "An agent that answers is left alone. Beside one that does not, whose DaemonSet is "
            "gone: new connections go direct,\nand sidetrack-cni leaves the CNI configuration, so "
            "that the node starts pods. Otherwise nothing is changed.\n\n"
         << leave_options() << "\n"
         << common_options()
         << "\nExample: sidetrack-agent leave --config /etc/sidetrack/agent.conf\n";
  } else if (command == Command::kSelfTest) {
    text << "sidetrack-agent self-test [options]: tries whether sockets can skip TCP on this "
            "kernel.\n"
            "Makes a network namespace (--netns: uses that one), a cgroup and pins of its own and "
            "takes them away again; "
            "pods are not touched.\nExit codes: 0 all passed, 1 something failed, 3 this kernel "
            "cannot load the programs.\n\n"
         << self_test_options() << "\n"
         << common_options();
  } else {
    text
        << "sidetrack-agent: moves pods' TCP connections to the node's engine by eBPF, as "
           "Kubernetes labels say.\n\n"
           "  sidetrack-agent run [options]                 follows the API, or the objects in "
           "--objects DIR; SIGHUP reads them again\n"
           "  sidetrack-agent uninstall [options]           removes everything that it made, after "
           "connections have drained\n"
           "  sidetrack-agent leave [options]               before the pod of an agent ends: "
           "clears its node if it hangs and is not wanted any more\n"
           "  sidetrack-agent self-test [options]           tries whether sockets can skip TCP on "
           "this kernel\n"
           "  sidetrack-agent COMMAND --help | --version\n\n"
        << common_options() << "\n"
        << run_options() << "\n"
        << uninstall_options() << "\n"
        << self_test_options()
        << "\nExample: sidetrack-agent run --objects /etc/sidetrack/objects & sidetrack-engine run "
           "& sidetrackctl status\n";
  }
  text << "Exit codes: 0 done, 1 runtime error, 2 usage or configuration error (nothing was "
          "changed), 3 this kernel cannot run it.\n";
  return text.str();
}

}  // namespace sidetrack::agent
