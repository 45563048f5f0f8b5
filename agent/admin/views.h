// SPDX-License-Identifier: Apache-2.0
// What the agent can say of itself: plain data that the admin API serialises (docs/api.md) and
// sidetrackctl prints. Field names are the JSON names. Times are Unix seconds with fraction. No
// I/O.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/kube/model.h"
#include "sidetrack/result.h"

namespace sidetrack::admin {

struct ProgramView {
  std::string name, hook;
  bool attached = false;
  std::uint64_t cgroup_id = 0;
  std::uint32_t program_id = 0;
  std::string detail;
};
struct MapView {
  std::string map;
  std::uint64_t entries = 0, capacity = 0;
};
struct ProblemView {
  std::string severity;  // error, warning
  std::string object, key, value, reason;
  std::string action;        // what to do
  bool from_object = false;  // by what an object or a file says
};
struct EngineView {
  std::string kind;   // embedded, external, none
  std::string state;  // up, down, full, draining, none
  std::string detail;
  std::int64_t pid = 0;
  double last_beat_age_s = -1;  // -1 = never
  std::uint64_t connections = 0;
};
// One watched resource of the API.
struct WatchView {
  std::string resource;  // pods, namespaces, services, endpointslices, nodes
  bool listed = false;   // since the agent started
  std::uint64_t objects = 0, relists = 0, failures = 0;
  double last_event = 0;  // 0 = none yet
  double cached = 0;      // not listed: of when what is used is; 0 = it is not from the disk
  std::string problem;    // of the last request
};
struct KubernetesView {
  std::vector<WatchView> resources;
  std::uint64_t events_sent = 0, events_suppressed = 0, events_failed = 0;
  std::uint64_t pods_captured_late = 0;  // since the agent started
  // The configuration that carries the CNI plugin; empty without an installer.
  std::string cni_file, cni_network, cni_problem;
  std::map<std::string, std::uint64_t> conflist_rewrites;  // by cause
};
struct StatusView {
  std::string version;
  std::string agent_state;  // starting, ready, degraded, standby
  std::int64_t pid = 0;
  double started = 0;
  std::string node, source, pin_dir, cgroup;
  std::string kernel;  // release
  std::vector<EngineView> engines;
  std::vector<ProgramView> programs;
  std::uint64_t pods_wanted = 0, pods_enrolled = 0, pods_drift = 0, pods_skipped = 0;
  std::map<std::string, std::uint64_t> drift_reasons;
  std::string fast_path, fast_path_reason;                    // on, off
  std::uint64_t fast_path_connections = 0;                    // adopted now
  std::map<std::string, std::uint64_t> fast_path_namespaces;  // the same, by the client's
  std::map<std::string, std::uint64_t> fast_path_refused;     // sockets and messages, by reason
  bool bypass = false;
  std::vector<MapView> maps;
  std::vector<ProblemView> problems;
  std::optional<KubernetesView> kubernetes;  // with source kubernetes
  std::uint64_t repairs = 0;  // programs attached again and rows put right since the agent started
};
struct PodView {
  std::string namespace_name, pod;  // JSON "namespace"
  std::string mode;
  std::string state;  // enrolled, pending, skipped, drift
  std::string reason, reason_detail;
  std::string fast_path, fast_path_reason;  // auto, node, off; why the latest stays on TCP
  std::uint64_t fast_path_connections = 0;  // adopted now
  std::uint64_t fast_path_waiting = 0;      // nominated, not adopted yet
  std::string on_engine_loss;
  std::vector<std::uint16_t> engine_ports;  // IPv4 listeners
  std::vector<std::uint16_t> engine_ports_v6;
  std::uint64_t netns_cookie = 0;
  std::vector<std::string> addresses;        // its own, as its row in the kernel has them
  std::vector<std::string> other_addresses;  // more that it has, on interfaces other than lo
  std::uint64_t connections = 0;
  std::uint32_t policy_id = 0;
  double captured_late_s = 0;  // how long it ran before; 0 = in time, or not known
};
struct RuleView {
  std::string object, key, value;
};
struct PolicyEntryView {
  std::string name;  // mode, fast_path, on_engine_loss, exclude_outbound_ports, ...
  std::string value;
  RuleView origin;
};
struct PolicyView {
  std::string namespace_name, pod;
  std::uint32_t policy_id = 0;
  std::vector<PolicyEntryView> entries;
};
struct ExplainView {
  std::string namespace_name, pod, destination;
  std::string verdict, reason, path;
  std::string explanation;  // one sentence for a person
  std::optional<RuleView> rule;
  std::uint32_t policy_id = 0;
  bool agrees_with_kernel = true;
  std::vector<std::string>
      endpoints;  // where the engine would send it, if the destination is a Service
  std::string service;
  // possible; no; never: it is left fully alone. Why not, as a name and in words.
  std::string fast_path, fast_path_reason, fast_path_explanation;
};
struct FlowView {
  double start = 0;
  double end = 0;  // 0 = still open
  std::string namespace_name, pod, source, destination, endpoint;
  std::string verdict, reason, path;
  std::uint64_t bytes_out = 0, bytes_in = 0;
  std::string close;             // empty = still open
  std::string fast_path_reason;  // why nothing has skipped TCP; empty: something has, or is unknown
};
struct CounterView {
  std::string namespace_name;                                // "" = outside of every namespace
  std::map<std::string, std::uint64_t> connections;          // by reason, zero rows left out
  std::map<std::string, std::uint64_t> bytes_out, bytes_in;  // by path
  std::uint64_t flows_dropped = 0, records_full = 0, storage_full = 0, record_fallback = 0;
};
// None of its pods takes part in the fast path.
struct WorkloadView {
  std::string workload;  // NAMESPACE/KIND/NAME of the controller, or NAMESPACE/Pod/NAME
  std::string reason;    // what a replica did
};
struct FlowQuery {
  std::string namespace_name;        // "" = all
  double since = 0;                  // Unix time, 0 = everything kept
  std::uint64_t after_sequence = 0;  // for -f: only closed flows with a larger sequence number
};
struct FlowPage {
  std::vector<FlowView> flows;      // closed ones first, oldest first, then live ones
  std::uint64_t next_sequence = 0;  // pass as after_sequence
};

// Implemented by the agent; called on its one thread. kNotFound names the object and says how to
// list the known ones.
class Views {
 public:
  virtual ~Views() = default;
  virtual StatusView status() = 0;
  virtual std::vector<PodView> pods(const std::string& namespace_name) = 0;
  virtual Result<PolicyView> policy(const std::string& namespace_name, const std::string& pod) = 0;
  virtual Result<ExplainView> explain(const std::string& namespace_name, const std::string& pod,
                                      const std::string& destination) = 0;
  virtual FlowPage flows(const FlowQuery& query) = 0;
  virtual std::vector<CounterView> counters() = 0;
  virtual Result<void> set_bypass(bool on) = 0;
  virtual std::vector<WorkloadView> demoted_workloads() = 0;
  // Its next replica is observed anew. kBusy names a pod that has to go before.
  virtual Result<void> forget_workload(const std::string& workload) = 0;
  // Liveness: the loop runs. Readiness: programs attached, first sync done, socket up.
  virtual bool ready() = 0;
  virtual double last_policy_apply_s() = 0;
};

}  // namespace sidetrack::admin
