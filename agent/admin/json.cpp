// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/json.h"

#include <nlohmann/json.hpp>

namespace sidetrack::admin {
namespace {

using nlohmann::json;

json to_json(const ProgramView& program) {
  return {{"name", program.name},
          {"hook", program.hook},
          {"attached", program.attached},
          {"cgroup_id", program.cgroup_id},
          {"program_id", program.program_id},
          {"detail", program.detail}};
}

json to_json(const MapView& map) {
  return {{"map", map.map}, {"entries", map.entries}, {"capacity", map.capacity}};
}

json to_json(const ProblemView& problem) {
  return {{"severity", problem.severity}, {"object", problem.object}, {"key", problem.key},
          {"value", problem.value},       {"reason", problem.reason}, {"action", problem.action}};
}

json to_json(const EngineView& engine) {
  return {{"kind", engine.kind},
          {"state", engine.state},
          {"detail", engine.detail},
          {"pid", engine.pid},
          {"last_beat_age_s", engine.last_beat_age_s},
          {"connections", engine.connections}};
}

json to_json(const RuleView& rule) {
  return {{"object", rule.object}, {"key", rule.key}, {"value", rule.value}};
}

json to_json(const PolicyEntryView& entry) {
  return {{"name", entry.name}, {"value", entry.value}, {"origin", to_json(entry.origin)}};
}

template <typename T>
json list_of(const std::vector<T>& items) {
  json list = json::array();
  for (const auto& item : items) {
    list.push_back(to_json(item));
  }
  return list;
}

// The engine that new connections go to: the first that is up, else the first.
json current_engine(const std::vector<EngineView>& engines) {
  for (const auto& engine : engines) {
    if (engine.state == "up") {
      return to_json(engine);
    }
  }
  return to_json(engines.empty() ? EngineView{.kind = "none", .state = "none", .detail = ""}
                                 : engines.front());
}

json to_json(const KubernetesView& view) {
  json resources = json::array();
  for (const WatchView& watch : view.resources) {
    resources.push_back({{"resource", watch.resource},
                         {"listed", watch.listed},
                         {"objects", watch.objects},
                         {"relists", watch.relists},
                         {"failures", watch.failures},
                         {"last_event", watch.last_event},
                         {"cached", watch.cached},
                         {"problem", watch.problem}});
  }
  return {{"resources", resources},
          {"events",
           {{"sent", view.events_sent},
            {"suppressed", view.events_suppressed},
            {"failed", view.events_failed}}},
          {"cni",
           {{"file", view.cni_file},
            {"network", view.cni_network},
            {"problem", view.cni_problem},
            {"conflist_rewrites", view.conflist_rewrites}}},
          {"pods_captured_late", view.pods_captured_late}};
}

}  // namespace

json to_json(const StatusView& view) {
  return {{"agent",
           {{"version", view.version},
            {"state", view.agent_state},
            {"pid", view.pid},
            {"started", view.started},
            {"node", view.node},
            {"source", view.source},
            {"pin_dir", view.pin_dir},
            {"cgroup", view.cgroup}}},
          {"engine", current_engine(view.engines)},
          {"engines", list_of(view.engines)},
          {"kernel", view.kernel},
          {"programs", list_of(view.programs)},
          {"pods",
           {{"wanted", view.pods_wanted},
            {"enrolled", view.pods_enrolled},
            {"drift", view.pods_drift},
            {"skipped", view.pods_skipped},
            {"drift_reasons", view.drift_reasons}}},
          {"fast_path", view.fast_path},
          {"fast_path_reason", view.fast_path_reason},
          {"fast_path_connections", view.fast_path_connections},
          {"fast_path_refused", view.fast_path_refused},
          {"bypass", view.bypass},
          {"maps", list_of(view.maps)},
          {"problems", list_of(view.problems)},
          {"kubernetes", view.kubernetes ? to_json(*view.kubernetes) : json()},
          {"repairs", view.repairs}};
}

json to_json(const PodView& view) {
  return {{"namespace", view.namespace_name},
          {"pod", view.pod},
          {"mode", view.mode},
          {"state", view.state},
          {"reason", view.reason},
          {"reason_detail", view.reason_detail},
          {"fast_path", view.fast_path},
          {"fast_path_reason", view.fast_path_reason},
          {"fast_path_connections", view.fast_path_connections},
          {"fast_path_waiting", view.fast_path_waiting},
          {"on_engine_loss", view.on_engine_loss},
          {"engine_ports", view.engine_ports},
          {"engine_ports_v6", view.engine_ports_v6},
          {"netns_cookie", view.netns_cookie},
          {"addresses", view.addresses},
          {"other_addresses", view.other_addresses},
          {"connections", view.connections},
          {"policy_id", view.policy_id},
          {"captured_late_s", view.captured_late_s}};
}

json to_json(const PolicyView& view) {
  return {{"namespace", view.namespace_name},
          {"pod", view.pod},
          {"policy_id", view.policy_id},
          {"entries", list_of(view.entries)}};
}

json to_json(const ExplainView& view) {
  return {{"namespace", view.namespace_name},
          {"pod", view.pod},
          {"destination", view.destination},
          {"verdict", view.verdict},
          {"reason", view.reason},
          {"path", view.path},
          {"explanation", view.explanation},
          {"rule", view.rule ? to_json(*view.rule) : json(nullptr)},
          {"policy_id", view.policy_id},
          {"agrees_with_kernel", view.agrees_with_kernel},
          {"endpoints", view.endpoints},
          {"service", view.service},
          {"fast_path", view.fast_path},
          {"fast_path_reason", view.fast_path_reason},
          {"fast_path_explanation", view.fast_path_explanation}};
}

json to_json(const FlowView& view) {
  return {{"start", view.start},
          {"end", view.end},
          {"namespace", view.namespace_name},
          {"pod", view.pod},
          {"source", view.source},
          {"destination", view.destination},
          {"endpoint", view.endpoint},
          {"verdict", view.verdict},
          {"reason", view.reason},
          {"path", view.path},
          {"bytes_out", view.bytes_out},
          {"bytes_in", view.bytes_in},
          {"close", view.close},
          {"fast_path_reason", view.fast_path_reason}};
}

json to_json(const CounterView& view) {
  return {{"namespace", view.namespace_name},    {"connections", view.connections},
          {"bytes_out", view.bytes_out},         {"bytes_in", view.bytes_in},
          {"flows_dropped", view.flows_dropped}, {"records_full", view.records_full},
          {"storage_full", view.storage_full},   {"record_fallback", view.record_fallback}};
}

json to_json(const FlowPage& page) {
  return {{"flows", list_of(page.flows)}, {"next_sequence", page.next_sequence}};
}

json to_json(const std::vector<PodView>& pods) {
  return {{"pods", list_of(pods)}};
}

json to_json(const std::vector<CounterView>& counters) {
  return {{"counters", list_of(counters)}};
}

json to_json(const WorkloadView& view) {
  return {{"workload", view.workload}, {"reason", view.reason}};
}

json to_json(const std::vector<WorkloadView>& workloads) {
  return {{"workloads", list_of(workloads)}};
}

json to_json(const Error& error) {
  return {{"error", {{"code", code_name(error.code)}, {"message", error.message}}}};
}

std::string code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kPermission:
      return "permission";
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kExists:
      return "exists";
    case ErrorCode::kFull:
      return "full";
    case ErrorCode::kBusy:
      return "busy";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kInternal:
      break;
  }
  return "internal";
}

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace sidetrack::admin
