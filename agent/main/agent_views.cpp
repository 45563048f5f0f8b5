// SPDX-License-Identifier: Apache-2.0
// What the agent says of itself: read from the kernel wherever the kernel knows.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>

#include "agent/dataplane/pinned.h"
#include "agent/main/agent.h"
#include "agent/main/names.h"
#include "sidetrack/decide.h"
#include "sidetrack/version.h"

namespace sidetrack::agent {

namespace {

admin::RuleView to_rule(const policy::Origin& origin) {
  return {origin.object, origin.key, origin.value};
}

std::optional<admin::RuleView> rule_of(const policy::PodIntent& intent, st_reason reason,
                                       const policy::SocketAddress& to) {
  if (const auto rule = policy::deciding_rule(intent.rules, reason, to.address, to.port)) {
    return to_rule(*rule);
  }
  if (reason == ST_REASON_REDIRECTED || reason == ST_REASON_PASSTHROUGH ||
      reason == ST_REASON_NOT_ENROLLED) {
    return to_rule(intent.mode_origin);
  }
  if (reason == ST_REASON_ENGINE_DOWN || reason == ST_REASON_ENGINE_FULL ||
      reason == ST_REASON_ENGINE_DOWN_CLOSED) {
    return to_rule(intent.on_engine_loss_origin);
  }
  return reason == ST_REASON_BYPASS ? std::optional(admin::RuleView{"node", "bypass", "on"})
                                    : std::nullopt;
}

std::string explanation(const policy::PodIntent& intent, st_reason reason,
                        const std::vector<kube::Problem>& problems) {
  const std::string sentence = reason_sentence(reason);
  if (reason == ST_REASON_NOT_ENROLLED && !intent.reason.empty()) {
    return sentence + " (" + intent.reason +
           (intent.reason_detail.empty() ? ")" : ": " + intent.reason_detail + ")");
  }
  const std::string mistake =
      reason == ST_REASON_PASSTHROUGH ? mistake_sentence(intent, problems) : "";
  return mistake.empty() ? sentence : sentence + " " + mistake;
}

bool is_engine_reason(st_reason reason) {
  return reason == ST_REASON_REDIRECTED || reason == ST_REASON_ENGINE_DOWN ||
         reason == ST_REASON_ENGINE_FULL || reason == ST_REASON_ENGINE_DOWN_CLOSED ||
         reason == ST_REASON_PORT_BUDGET || reason == ST_REASON_INTERNAL_ERROR;
}

struct PolicyReader {
  const policy::CompiledPolicy& compiled;
  const st_addr& address;
  std::uint16_t port;
};

}  // namespace

Error Agent::no_such_pod(const std::string& namespace_name, const std::string& pod) const {
  return make_error(
      ErrorCode::kNotFound,
      fmt::format("no pod {}/{} on this node (sidetrackctl pods lists them){}", namespace_name, pod,
                  is_held() ? ": no names are known before the objects can be read" : ""));
}

bool Agent::agrees_with_policy(const policy::PodIntent& intent, const st_pod& row,
                               const st_connect& connect, std::uint16_t port,
                               st_reason reason) const {
  st_pod wanted = row;
  wanted.mode = static_cast<std::uint8_t>(
      intent.state == policy::PodState::kEnrol ? intent.mode : ST_MODE_DISABLED);
  if (options_.engine == reconcile::EngineKind::kNone && wanted.mode == ST_MODE_REDIRECT) {
    wanted.mode = ST_MODE_PASSTHROUGH;
  }
  PolicyReader reader{*intent.compiled, connect.destination, port};
  const st_reason expected = st_decide(
      &connect, &wanted,
      [](void* context, st_rules* rules) {
        const auto& policy = *static_cast<PolicyReader*>(context);
        *rules = policy.compiled.look_up(policy.address, policy.port);
      },
      [](void*) { return ST_ENGINE_READY; }, &reader);
  return expected == reason || reason == ST_REASON_BYPASS ||
         (expected == ST_REASON_REDIRECTED && is_engine_reason(reason));
}

admin::StatusView Agent::status() {
  admin::StatusView view;
  utsname system{};
  uname(&system);
  view.version = version();
  view.pid = getpid();
  view.started = started_;
  view.node = options_.node_name;
  view.source = options_.source;
  view.pin_dir = options_.pin_dir;
  view.cgroup = cgroups_.attach_dir;
  view.kernel = system.release;
  view.engines = engine_views();
  const auto programs = dataplane_->programs();
  bool attached = true;
  for (const dataplane::ProgramState& program : programs) {
    attached = attached && program.attached;
    view.programs.push_back({program.name, program.hook, program.attached, program.cgroup_id,
                             program.program_id, program.detail});
  }
  const auto pods = pod_statuses(programs);
  for (const reconcile::PodStatus& pod : pods) {
    view.pods_skipped += pod.phase == reconcile::PodPhase::kSkipped ? 1 : 0;
    view.pods_wanted += pod.phase == reconcile::PodPhase::kSkipped ? 0 : 1;
    view.pods_enrolled += pod.phase == reconcile::PodPhase::kEnrolled ? 1 : 0;
    if (pod.phase == reconcile::PodPhase::kDrift || pod.phase == reconcile::PodPhase::kPending) {
      ++view.pods_drift;
      ++view.drift_reasons[pod.reason];
    }
  }
  const std::uint64_t held = held_pods().size();
  view.pods_wanted += held;
  view.pods_enrolled += held;
  view.fast_path = fast_path_.on() ? "on" : "off";
  view.fast_path_reason = fast_path_.problem();
  view.fast_path_connections = fast_path_.adopted();
  view.fast_path_refused = fast_path_.refused();
  for (const auto& [netns_cookie, count] : fast_path_.adopted_by_client()) {
    if (const auto* owner = reconciler_.owner(netns_cookie); owner != nullptr) {
      view.fast_path_namespaces[owner->namespace_name] += count;
    }
  }
  const auto switched = dataplane::bypass(options_.pin_dir);
  view.bypass = switched && *switched;
  for (const dataplane::MapFill& map : dataplane_->fill()) {
    view.maps.push_back({map.name, map.entries, map.capacity});
  }
  view.problems = problem_views(pods, view.engines);
  if (kubernetes_) {
    view.kubernetes = kubernetes_->view();
  }
  view.repairs = repairs_;
  view.agent_state = !synced_                              ? "starting"
                     : attached && program_errors_.empty() ? "ready"
                                                           : "degraded";
  return view;
}

Result<admin::PolicyView> Agent::policy(const std::string& namespace_name, const std::string& pod) {
  const policy::PodIntent* intent = reconciler_.intent(namespace_name, pod);
  if (intent == nullptr) {
    return no_such_pod(namespace_name, pod);
  }
  admin::PolicyView view{.namespace_name = namespace_name, .pod = pod};
  if (const auto cookie = reconciler_.cookie(namespace_name, pod)) {
    const auto row = dataplane_->pod(*cookie);
    view.policy_id = row && *row ? (*row)->policy_id : 0;
  }
  view.entries.push_back({"mode", mode_name(intent->mode), to_rule(intent->mode_origin)});
  view.entries.push_back(
      {"fast_path", fast_path_name(intent->fast_path), to_rule(intent->fast_path_origin)});
  view.entries.push_back({"on_engine_loss", on_engine_loss_name(intent->on_engine_loss),
                          to_rule(intent->on_engine_loss_origin)});
  const auto add = [&view](const char* name, const policy::Origin& origin) {
    view.entries.push_back({name, origin.value, to_rule(origin)});
  };
  if (!intent->tuning_origin.key.empty()) {
    add("tcp", intent->tuning_origin);
  }
  for (const policy::PortList& list : intent->rules.exclude_ports) {
    add("exclude_outbound_ports", list.origin);
  }
  for (const policy::CidrList& list : intent->rules.exclude_cidrs) {
    add("exclude_outbound_cidrs", list.origin);
  }
  if (intent->rules.include_ports) {
    add("include_outbound_ports", intent->rules.include_ports->origin);
  }
  if (intent->rules.include_cidrs) {
    add("include_outbound_cidrs", intent->rules.include_cidrs->origin);
  }
  return view;
}

Result<admin::ExplainView> Agent::explain(const std::string& namespace_name, const std::string& pod,
                                          const std::string& destination) {
  const policy::PodIntent* intent = reconciler_.intent(namespace_name, pod);
  if (intent == nullptr) {
    return no_such_pod(namespace_name, pod);
  }
  auto to = policy::parse_endpoint(destination);
  if (!to) {
    return to.error().within("destination");
  }
  admin::ExplainView view{.namespace_name = namespace_name,
                          .pod = pod,
                          .destination = policy::format_endpoint(to->address, to->port)};
  st_reason reason = ST_REASON_UNKNOWN_NETNS;
  if (const auto cookie = reconciler_.cookie(namespace_name, pod)) {
    st_connect connect{};
    connect.destination = to->address;
    connect.tcp = 1;
    const st_config wanted = config();
    connect.engine_address =
        st_is_engine_at(&wanted, &connect.destination, htons(to->port)) != 0 ? 1 : 0;
    auto row = dataplane_->pod(*cookie);
    ST_TRY(row);
    auto verdict = dataplane_->explain(*cookie, connect, to->port);
    ST_TRY(verdict);
    reason = verdict->reason;
    view.policy_id = *row ? (*row)->policy_id : 0;
    view.agrees_with_kernel = *row && agrees_with_policy(*intent, **row, connect, to->port, reason);
    explain_fast_path(view, *verdict, *cookie, *to);
  } else {
    view.agrees_with_kernel = intent->state != policy::PodState::kEnrol;
  }
  view.verdict = verdict_name(reason);
  view.reason = reason_name(reason);
  view.path = st_verdict_of(reason) == ST_VERDICT_refused
                  ? ""
                  : path_name(reason == ST_REASON_REDIRECTED ? ST_PATH_ENGINE : ST_PATH_DIRECT);
  view.explanation = explanation(*intent, reason, problems_);
  view.rule = rule_of(*intent, reason, *to);
  if (const auto* route = routes_.find(view.destination); route != nullptr) {
    view.service = route->service;
    for (const policy::SocketAddress& endpoint : route->endpoints) {
      view.endpoints.push_back(policy::format_endpoint(endpoint.address, endpoint.port));
    }
    if (view.endpoints.empty() && st_verdict_of(reason) != ST_VERDICT_refused) {
      view.explanation += " " + no_endpoint_sentence(view.service, reason);
    }
  }
  return view;
}

// The server's end, if it is a pod of this node: of a Service the first of its endpoints that is.
std::optional<std::uint64_t> Agent::server_of(const policy::SocketAddress& to) const {
  std::vector<st_addr> addresses{to.address};
  if (const auto* route = routes_.find(policy::format_endpoint(to.address, to.port));
      route != nullptr) {
    addresses.clear();
    for (const policy::SocketAddress& endpoint : route->endpoints) {
      addresses.push_back(endpoint.address);
    }
  }
  const auto pods = reconciler_.status();
  for (const st_addr& address : addresses) {
    for (const reconcile::PodStatus& pod : pods) {
      const auto& own = pod.intent.addresses;
      if (pod.netns_cookie != 0 && std::any_of(own.begin(), own.end(), [&](const st_addr& one) {
            return st_addr_equal(&one, &address) != 0;
          })) {
        return pod.netns_cookie;
      }
    }
  }
  return std::nullopt;
}

void Agent::explain_fast_path(admin::ExplainView& view, const dataplane::Explained& verdict,
                              std::uint64_t client, const policy::SocketAddress& to) {
  const bool direct = verdict.observed;
  if (verdict.reason != ST_REASON_REDIRECTED && !direct) {
    view.fast_path = "never";
    return;
  }
  const auto server = direct ? server_of(to) : std::nullopt;
  const st_fast_reason against =
      direct && !server && fast_path_.on() ? ST_FAST_NO_PEER : fast_path_.against(client, server);
  view.fast_path = against == ST_FAST_NONE ? "possible" : "no";
  if (against != ST_FAST_NONE) {
    view.fast_path_reason = adopt::name_of(against);
    view.fast_path_explanation = fast_path_.text_of(against);
  }
}

std::vector<admin::CounterView> Agent::counters() {
  std::vector<admin::CounterView> views;
  const auto rows = dataplane_->counters();
  if (!rows) {
    return views;
  }
  for (const dataplane::CounterRow& row : *rows) {
    admin::CounterView view{.namespace_name = row.namespace_name};
    for (unsigned reason = 0; reason < ST_REASON_COUNT; ++reason) {
      if (row.counters.connections[reason] != 0) {
        view.connections[reason_name(reason)] = row.counters.connections[reason];
      }
    }
    for (unsigned path = 0; path < ST_PATH_COUNT; ++path) {
      if (row.counters.bytes_out[path] != 0 || row.counters.bytes_in[path] != 0) {
        view.bytes_out[path_name(path)] = row.counters.bytes_out[path];
        view.bytes_in[path_name(path)] = row.counters.bytes_in[path];
      }
    }
    view.flows_dropped = row.counters.flows_dropped;
    view.records_full = row.counters.records_full;
    view.storage_full = row.counters.storage_full;
    view.record_fallback = row.counters.record_fallback;
    views.push_back(std::move(view));
  }
  return views;
}

Result<void> Agent::set_bypass(bool on) {
  return dataplane::set_bypass(options_.pin_dir, on);
}

std::vector<admin::WorkloadView> Agent::demoted_workloads() {
  std::vector<admin::WorkloadView> views;
  for (const auto& [workload, reason] : fast_path_.demoted_workloads()) {
    views.push_back({.workload = workload, .reason = std::string(adopt::name_of(reason))});
  }
  return views;
}

Result<void> Agent::forget_workload(const std::string& workload) {
  return fast_path_.forget_workload(workload);
}

bool Agent::ready() {
  if (!synced_ || !program_errors_.empty()) {
    return false;
  }
  for (const dataplane::ProgramState& program : dataplane_->programs()) {
    if (!program.attached) {
      return false;
    }
  }
  return true;
}

}  // namespace sidetrack::agent
