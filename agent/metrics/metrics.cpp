// SPDX-License-Identifier: Apache-2.0
#include "agent/metrics/metrics.h"

#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <utility>

namespace sidetrack::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

double number(std::uint64_t value) {
  return static_cast<double>(value);
}

// A family under construction: one line per sample.
class FamilyBuilder {
 public:
  FamilyBuilder(std::string name, std::string help, MetricType type)
      : family_{.name = std::move(name), .help = std::move(help), .type = type, .metric = {}} {}

  FamilyBuilder& add(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (family_.type == MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family_.metric.push_back(std::move(metric));
    return *this;
  }

  // A family without samples is left out.
  void put_into(std::vector<MetricFamily>& families) {
    if (!family_.metric.empty()) {
      families.push_back(std::move(family_));
    }
  }

 private:
  MetricFamily family_;
};

FamilyBuilder gauge(std::string name, std::string help) {
  return {std::move(name), std::move(help), MetricType::Gauge};
}
FamilyBuilder counter(std::string name, std::string help) {
  return {std::move(name), std::move(help), MetricType::Counter};
}

// The verdict that goes with a reason, from the one table there is.
std::string verdict_of(const std::string& reason) {
  static const std::map<std::string, std::string> kVerdicts = {
#define ST_REASON(NAME, name, verdict) {#name, #verdict},
#include "sidetrack/abi/counters.def"
#undef ST_REASON
  };
  const auto found = kVerdicts.find(reason);
  return found == kVerdicts.end() ? "direct" : found->second;
}

void add_traffic(const std::vector<admin::CounterView>& rows, std::vector<MetricFamily>& families) {
  auto connections =
      counter("sidetrack_connections_total", "connect() calls by what became of them.");
  auto bytes = counter("sidetrack_flow_bytes_total",
                       "Payload bytes of closed connections, as their clients saw them.");
  for (const auto& row : rows) {
    for (const auto& [reason, count] : row.connections) {
      connections.add(
          {{"namespace", row.namespace_name}, {"verdict", verdict_of(reason)}, {"reason", reason}},
          number(count));
    }
    for (const auto& [path, count] : row.bytes_out) {
      bytes.add({{"namespace", row.namespace_name}, {"path", path}, {"direction", "out"}},
                number(count));
    }
    for (const auto& [path, count] : row.bytes_in) {
      bytes.add({{"namespace", row.namespace_name}, {"path", path}, {"direction", "in"}},
                number(count));
    }
  }
  connections.put_into(families);
  bytes.put_into(families);
}

void add_losses(const std::vector<admin::CounterView>& rows, std::vector<MetricFamily>& families) {
  admin::CounterView sum;
  for (const auto& row : rows) {
    sum.flows_dropped += row.flows_dropped;
    sum.records_full += row.records_full;
    sum.storage_full += row.storage_full;
    sum.record_fallback += row.record_fallback;
  }
  counter("sidetrack_flow_records_dropped_total",
          "Flow records that found no room in the ring buffer.")
      .add({}, number(sum.flows_dropped))
      .put_into(families);
  counter("sidetrack_records_full_total",
          "Redirected connections that found no room for their original destination after "
          "all: the engine refused them.")
      .add({}, number(sum.records_full))
      .put_into(families);
  counter("sidetrack_storage_full_total", "connect() calls that got no socket storage.")
      .add({}, number(sum.storage_full))
      .put_into(families);
  counter("sidetrack_record_fallback_total",
          "Original destinations asked for before the socket's callback had run.")
      .add({}, number(sum.record_fallback))
      .put_into(families);
}

void add_pods(const admin::StatusView& status, std::vector<MetricFamily>& families) {
  gauge("sidetrack_pods", "Pods of this node by state.")
      .add({{"state", "wanted"}}, number(status.pods_wanted))
      .add({{"state", "enrolled"}}, number(status.pods_enrolled))
      .add({{"state", "drift"}}, number(status.pods_drift))
      .add({{"state", "skipped"}}, number(status.pods_skipped))
      .put_into(families);
  auto drift = gauge("sidetrack_pod_drift", "Pods that should be enrolled and are not, by reason.");
  for (const auto& [reason, count] : status.drift_reasons) {
    drift.add({{"reason", reason}}, number(count));
  }
  drift.put_into(families);
}

// An agent that wants no engine has none to be down.
bool wants_engine(const admin::StatusView& status) {
  return status.engines.empty() ||
         std::any_of(status.engines.begin(), status.engines.end(),
                     [](const auto& engine) { return engine.kind != "none"; });
}

void add_node(const admin::StatusView& status, std::vector<MetricFamily>& families) {
  if (wants_engine(status)) {
    const bool up = std::any_of(status.engines.begin(), status.engines.end(),
                                [](const auto& engine) { return engine.state == "up"; });
    gauge("sidetrack_engine_up", "1 if an engine takes new connections.")
        .add({}, up ? 1 : 0)
        .put_into(families);
  }
  auto entries = gauge("sidetrack_map_entries", "Entries of a BPF map.");
  auto capacity = gauge("sidetrack_map_capacity", "Entries that a BPF map has room for.");
  for (const auto& map : status.maps) {
    entries.add({{"map", map.map}}, number(map.entries));
    capacity.add({{"map", map.map}}, number(map.capacity));
  }
  entries.put_into(families);
  capacity.put_into(families);
  std::map<std::string, bool> hooks;
  for (const auto& program : status.programs) {
    const auto [hook, fresh] = hooks.emplace(program.hook, program.attached);
    hook->second = hook->second && program.attached;
  }
  auto attached = gauge("sidetrack_program_attached",
                        "1 if our program is attached to the hook, read from the kernel.");
  for (const auto& [hook, is_attached] : hooks) {
    attached.add({{"hook", hook}}, is_attached ? 1 : 0);
  }
  attached.put_into(families);
}

void add_fast_path(const admin::StatusView& status, std::vector<MetricFamily>& families) {
  auto connections =
      gauge("sidetrack_fastpath_connections", "Connections of which both ends are adopted now.");
  for (const auto& [name, count] : status.fast_path_namespaces) {
    connections.add({{"namespace", name}}, number(count));
  }
  auto refused = counter("sidetrack_fastpath_refused_total",
                         "Sockets and messages that stayed on TCP, by the reason.");
  for (const auto& [reason, count] : status.fast_path_refused) {
    refused.add({{"reason", reason}}, number(count));
  }
  connections.put_into(families);
  refused.put_into(families);
}

void add_agent(const admin::StatusView& status, std::vector<MetricFamily>& families) {
  const auto errors =
      std::count_if(status.problems.begin(), status.problems.end(),
                    [](const auto& problem) { return problem.severity == "error"; });
  gauge("sidetrack_problems", "Problems that sidetrackctl status shows, by severity.")
      .add({{"severity", "error"}}, static_cast<double>(errors))
      .add({{"severity", "warning"}}, static_cast<double>(std::ssize(status.problems) - errors))
      .put_into(families);
  const auto rejected = std::count_if(status.problems.begin(), status.problems.end(),
                                      [](const auto& problem) { return problem.from_object; });
  gauge("sidetrack_policy_rejected",
        "Values in Kubernetes objects or files that could not be used as written.")
      .add({}, static_cast<double>(rejected))
      .put_into(families);
  counter("sidetrack_repairs_total",
          "Programs attached again and rows put right because something else had changed them.")
      .add({}, number(status.repairs))
      .put_into(families);
  gauge("sidetrack_bypass", "1 while the emergency switch sends every new connection direct.")
      .add({}, status.bypass ? 1 : 0)
      .put_into(families);
  gauge("sidetrack_build_info", "Always 1; the version is the label.")
      .add({{"version", status.version}}, 1)
      .put_into(families);
  gauge("process_start_time_seconds", "When the agent started, Unix time.")
      .add({}, status.started)
      .put_into(families);
}

// What source kubernetes and the CNI installer tell.
void add_kubernetes(const admin::KubernetesView& view, std::vector<MetricFamily>& families) {
  auto last = gauge("sidetrack_watch_last_event_timestamp_seconds",
                    "When the API server was last heard of, by resource.");
  auto relists = counter("sidetrack_watch_relists_total", "Lists of a resource after the first.");
  auto failures = counter("sidetrack_watch_failures_total", "Requests of a resource that failed.");
  for (const admin::WatchView& watch : view.resources) {
    last.add({{"resource", watch.resource}}, watch.last_event);
    relists.add({{"resource", watch.resource}}, number(watch.relists));
    failures.add({{"resource", watch.resource}}, number(watch.failures));
  }
  last.put_into(families);
  relists.put_into(families);
  failures.put_into(families);
  counter("sidetrack_events_total", "Kubernetes Events, by what became of them.")
      .add({{"outcome", "sent"}}, number(view.events_sent))
      .add({{"outcome", "suppressed"}}, number(view.events_suppressed))
      .add({{"outcome", "failed"}}, number(view.events_failed))
      .put_into(families);
  counter("sidetrack_pods_captured_late_total",
          "Pods that ran before they were captured although they were wanted.")
      .add({}, number(view.pods_captured_late))
      .put_into(families);
  auto rewrites = counter("sidetrack_conflist_rewrites_total",
                          "Times that the CNI configuration was written, by cause.");
  for (const auto& [cause, count] : view.conflist_rewrites) {
    rewrites.add({{"cause", cause}}, number(count));
  }
  rewrites.put_into(families);
}

}  // namespace

struct Metrics::Impl {
  admin::Views& views;
  std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> cni_requests;  // command, code
  prometheus::Histogram cni_seconds{prometheus::Histogram::BucketBoundaries{
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5}};
  prometheus::Histogram policy_apply{prometheus::Histogram::BucketBoundaries{
      0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}};
};

Metrics::Metrics(admin::Views& views) : impl_(new Impl{.views = views}) {}
Metrics::~Metrics() = default;

void Metrics::observe_policy_apply(double seconds) {
  impl_->policy_apply.Observe(seconds);
}

void Metrics::observe_cni(std::string_view command, std::uint32_t code, double seconds) {
  ++impl_->cni_requests[{std::string(command), code}];
  impl_->cni_seconds.Observe(seconds);
}

std::vector<MetricFamily> Metrics::Collect() const {
  std::vector<MetricFamily> families;
  const auto status = impl_->views.status();
  const auto rows = impl_->views.counters();
  add_traffic(rows, families);
  add_losses(rows, families);
  add_pods(status, families);
  add_node(status, families);
  add_fast_path(status, families);
  families.push_back(
      {.name = "sidetrack_policy_apply_seconds",
       .help = "How long the agent worked on a change, from objects read to rows in the kernel.",
       .type = MetricType::Histogram,
       .metric = {impl_->policy_apply.Collect()}});
  if (status.kubernetes) {
    add_kubernetes(*status.kubernetes, families);
    auto requests = counter("sidetrack_cni_requests_total", "Questions of the CNI plugin.");
    for (const auto& [key, count] : impl_->cni_requests) {
      requests.add({{"command", key.first}, {"code", std::to_string(key.second)}}, number(count));
    }
    requests.put_into(families);
    families.push_back({.name = "sidetrack_cni_request_duration_seconds",
                        .help = "How long the CNI plugin waited for an answer.",
                        .type = MetricType::Histogram,
                        .metric = {impl_->cni_seconds.Collect()}});
  }
  add_agent(status, families);
  return families;
}

std::string Metrics::text() const {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, Collect());
  return out.str();
}

}  // namespace sidetrack::metrics
