// SPDX-License-Identifier: Apache-2.0
// The agent's options as a value: command line, then environment (SIDETRACK_*), then --config FILE;
// the first that sets one wins.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "agent/dataplane/dataplane.h"
#include "agent/policy/policy.h"
#include "agent/policy/services.h"
#include "agent/reconcile/row.h"
#include "sidetrack/cli/origins.h"
#include "sidetrack/log/log.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

enum class Command { kRun, kUninstall, kLeave, kSelfTest, kHelp, kVersion };

// Where an external engine listens.
struct ExternalEngine {
  policy::SocketAddress v4;  // port 0 = none
  policy::SocketAddress v6;
};

struct FastPathOptions {
  bool on = true;
  bool uncharged = false;    // also where the kernel charges no reader for what waits past TCP
  std::uint32_t window = 0;  // bytes
  std::uint32_t round_trips = 0;
  std::chrono::milliseconds probation{};
  bool loopback = false;
  dataplane::Sentinel sentinel = dataplane::Sentinel::kAuto;
};

// sidetrack-cni's place in the runtime's configuration.
struct CniOptions {
  std::string conf_dir;  // empty: not ours to install
  std::string bin_dir;
  std::string binary;  // empty: the one beside this program
  bool deny_when_down = false;
  std::chrono::seconds deny_for{};      // 0: for ever
  std::chrono::milliseconds timeout{};  // of the plugin's ADD and CHECK
  std::string log_file;                 // empty: none
  bool status_checks_agent = false;
};

struct Options {
  Command command = Command::kRun;
  Command help_of = Command::kHelp;  // with kHelp: of which command, kHelp = of all
  std::string source;                // files, kubernetes
  std::string objects_dir;
  std::string kubeconfig;  // empty: the pod's service account
  std::string daemonset;   // our own; empty: we never take ourselves back at the end
  CniOptions cni;
  std::string node_name;
  std::string state_dir;
  std::string cache_dir;
  bool standby = false;
  std::string pin_dir;
  std::string cgroup_dir;         // empty: the cgroup2 root
  std::string engine_cgroup_dir;  // empty: made by the agent
  reconcile::EngineKind engine = reconcile::EngineKind::kEmbedded;
  ExternalEngine external;
  std::uint16_t listener_port_low = 0;
  std::uint16_t listener_port_high = 0;
  std::uint16_t listeners_per_pod = 0;
  FastPathOptions fast_path;
  policy::NodeLists lists;
  std::vector<policy::Compat> compat;
  std::string namespace_name;  // the agent's own
  std::string http;            // "ADDR:PORT" or "off"
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
  std::chrono::seconds drain{30};  // uninstall
  bool keep_conflist = false;      // uninstall
  bool json = false;               // self-test
  std::string netns;               // self-test; empty: one of its own
  cli::Origins origins;            // of what the command line does not say
};

// kInvalid: the message names the option, its value and what is allowed.
[[nodiscard]] Result<Options> parse_options(int argc, const char* const* argv);

// Of one of the commands that do something; else of all.
[[nodiscard]] std::string help_text(Command command);

}  // namespace sidetrack::agent
