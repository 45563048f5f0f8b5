// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "agent/ctl/doctor.h"
#include "agent/ctl/render.h"
#include "sidetrack/version.h"

namespace sidetrack::ctl {
namespace {

using nlohmann::json;

std::string because(const std::string& detail) {
  return detail.empty() ? "" : ": " + detail;
}

void check_programs(const json& status, Findings& findings) {
  const auto& programs = list_of(status, "programs");
  std::size_t attached = 0;
  for (const auto& program : programs) {
    if (flag_of(program, "attached")) {
      ++attached;
      continue;
    }
    findings.push_back(
        {Severity::kError, "programs",
         fmt::format("{} is not attached to {}{}", text_of(program, "name"),
                     text_of(program, "hook"), because(text_of(program, "detail"))),
         "the agent attaches it again within seconds; if it does not, look at its log"});
  }
  if (programs.empty()) {
    findings.push_back({Severity::kError, "programs", "the agent has no program in the kernel",
                        "look at the agent's log"});
  } else if (attached == programs.size()) {
    findings.push_back(
        {Severity::kOk, "programs", fmt::format("all {} are attached", attached), ""});
  }
}

bool is_engine_problem(const json& problem) {
  return text_of(problem, "key") == "engine_down";
}

// What the agent says where no engine takes connections; null: one does.
const json* engine_problem(const json& status) {
  const auto problems = problems_of(status);
  const auto found = std::find_if(problems.begin(), problems.end(),
                                  [](const json* problem) { return is_engine_problem(*problem); });
  return found == problems.end() ? nullptr : *found;
}

// Pods that are not enrolled for that alone.
std::uint64_t waiting_for_engine(const json& status) {
  return engine_problem(status) == nullptr
             ? 0
             : count_of(list_of(list_of(status, "pods"), "drift_reasons"), "engine_down");
}

// About an engine that takes no connections.
std::string what_to_do(const std::string& kind, const std::string& state,
                       const std::string& advice) {
  if (state != "full") {
    return !advice.empty() ? advice
                           : "start it, or look at its log; new connections go as on-engine-loss "
                             "says";
  }
  return kind == "external"
             ? "look whether the proxy runs, and at its limit of connections; until it accepts "
               "again, new ones go as on-engine-loss says"
             : "it has no room for more connections: raise its file limit, look for leaks";
}

void check_engines(const json& status, Findings& findings) {
  const auto& engines = list_of(status, "engines");
  const bool up = std::any_of(engines.begin(), engines.end(),
                              [](const auto& one) { return text_of(one, "state") == "up"; });
  const json* const problem = engine_problem(status);
  const auto advice = problem == nullptr ? "" : text_of(*problem, "action");
  const auto waiting = waiting_for_engine(status);
  for (const auto& engine : engines) {
    const auto kind = text_of(engine, "kind");
    const auto state = text_of(engine, "state");
    const auto what =
        fmt::format("the {} engine is {}{}", kind, state, because(text_of(engine, "detail")));
    if (state == "up" || state == "draining" || kind == "none") {
      findings.push_back(
          {Severity::kOk, "engine", kind == "none" ? "no engine is wanted" : what, ""});
    } else {
      findings.push_back(
          {up ? Severity::kWarning : Severity::kError, "engine",
           what + (waiting == 0 ? "" : fmt::format("; pods that wait for it: {}", waiting)),
           what_to_do(kind, state, advice)});
    }
  }
  if (engines.empty()) {
    findings.push_back(
        {Severity::kError, "engine", "no engine is registered", "start sidetrack-engine"});
  }
}

// What problems of pods are told of already: object and key.
using Told = std::set<std::pair<std::string, std::string>>;

Told check_pods(const json& status, const json& pods, Findings& findings) {
  const auto& summary = list_of(status, "pods");
  const auto waiting = waiting_for_engine(status);  // told with the engine
  const auto drift = count_of(summary, "drift");
  if (drift == waiting) {
    findings.push_back({drift == 0 ? Severity::kOk : Severity::kHint, "pods",
                        fmt::format("{} wanted, {} enrolled", count_of(summary, "wanted"),
                                    count_of(summary, "enrolled")),
                        ""});
    return {};
  }
  Told told;
  std::uint64_t named = 0;
  for (const auto& pod : list_of(pods, "pods")) {
    const auto reason = text_of(pod, "reason");
    if (text_of(pod, "state") != "drift" || (waiting != 0 && reason == "engine_down")) {
      continue;
    }
    ++named;
    const auto name = text_of(pod, "namespace") + "/" + text_of(pod, "pod");
    told.emplace("Pod/" + name, reason);
    findings.push_back({Severity::kError, "pods",
                        fmt::format("{} should be enrolled and is not: {}{}", name, reason,
                                    because(text_of(pod, "reason_detail"))),
                        "sidetrackctl policy " + name});
  }
  // Those that wait for something are not among the named, and pods may have come in between.
  if (named + waiting < drift) {
    findings.push_back({Severity::kError, "pods",
                        fmt::format("{}{} pods should be enrolled and are not",
                                    drift - waiting - named, named == 0 ? "" : " more"),
                        "sidetrackctl pods"});
  }
  return told;
}

// Redirected connections of a pod show one address of each family as their own.
void check_addresses(const json& pods, Findings& findings) {
  for (const auto& pod : list_of(pods, "pods")) {
    const auto& others = list_of(pod, "other_addresses");
    if (others.empty() || text_of(pod, "state") != "enrolled" ||
        text_of(pod, "mode") != "redirect") {
      continue;
    }
    findings.push_back(
        {Severity::kHint, "pods",
         fmt::format("{}/{} has more addresses than one of a family ({}{}): redirected "
                     "connections that leave from these show the first as their own",
                     text_of(pod, "namespace"), text_of(pod, "pod"),
                     others.front().is_string() ? others.front().get<std::string>() : "",
                     others.size() == 1 ? "" : fmt::format(" and {} more", others.size() - 1)),
         "if its programs mind, exclude what is reached from there "
         "(sidetrack.io/exclude-outbound-cidrs)"});
  }
}

void check_maps(const json& status, Findings& findings) {
  bool full = false;
  for (const auto& map : list_of(status, "maps")) {
    const auto entries = count_of(map, "entries");
    const auto capacity = count_of(map, "capacity");
    if (entries * 5 > capacity * 4) {
      full = true;
      findings.push_back({Severity::kWarning, "maps",
                          fmt::format("{} is {} full ({} of {})", text_of(map, "map"),
                                      format_percent(entries, capacity), entries, capacity),
                          "what does not fit goes direct: enrol fewer pods on this node, or "
                          "shorten the CIDR lists"});
    }
  }
  if (!full && !list_of(status, "maps").empty()) {
    findings.push_back({Severity::kOk, "maps", "none is more than 80% full", ""});
  }
}

// Connections are right without it, only slower.
void check_fast_path(const json& status, Findings& findings) {
  const auto reason = text_of(status, "fast_path_reason");
  if (text_of(status, "fast_path") == "on") {
    findings.push_back({Severity::kOk, "fast path", "it is on", ""});
  } else if (reason == "node_off" || reason == "no_sentinel" || reason == "self_test_running") {
    findings.push_back({Severity::kOk, "fast path", "it is off: " + reason, ""});
  } else if (reason == "uncharged") {
    findings.push_back(
        {Severity::kHint, "fast path",
         "it is off: this kernel charges no reader for what waits past TCP",
         "--fast-path uncharged has it all the same; docs/fast-path.md says what differs"});
  } else {
    const bool tried = reason.starts_with("self_test");
    findings.push_back({Severity::kHint, "fast path",
                        (tried ? "this kernel cannot have it: " : "it is off: ") + reason,
                        std::string("connections go over TCP: right, only slower") +
                            (tried ? "; docs/kernels.md says more" : "")});
  }
}

void check_problems(const json& status, const Told& told, Findings& findings) {
  for (const json* const problem : problems_of(status)) {
    if (is_engine_problem(*problem) ||
        told.contains({text_of(*problem, "object"), text_of(*problem, "key")})) {
      continue;  // told with the engines and the pods
    }
    const auto value = text_of(*problem, "value");
    findings.push_back(
        {text_of(*problem, "severity") == "error" ? Severity::kError : Severity::kWarning,
         "objects",
         fmt::format("{}{}{}", subject_of(*problem),
                     value.empty() ? "" : " \"" + printable(value, kMostCellColumns) + "\"",
                     because(text_of(*problem, "reason"))),
         text_of(*problem, "action")});
  }
}

// "cgroup/connect4" has our st_connect4.
bool is_sidetracks(const HookedProgram& program) {
  const auto slash = program.hook.find('/');
  return program.name == "st_" + program.hook.substr(slash == std::string::npos ? 0 : slash + 1);
}

}  // namespace

void check_status(const json& status, const json& pods, Findings& findings) {
  const auto& agent = list_of(status, "agent");
  const auto state = text_of(agent, "state");
  const bool ready = state == "ready";
  findings.push_back(
      {ready ? Severity::kOk : Severity::kWarning, "agent",
       fmt::format("the agent is {} (version {}, pid {})", state, text_of(agent, "version"),
                   count_of(agent, "pid")),
       ready ? "" : "see the other findings; `sidetrackctl status` shows how it gets on"});
  if (const auto theirs = text_of(agent, "version"); !theirs.empty() && theirs != version()) {
    findings.push_back({Severity::kHint, "agent",
                        fmt::format("the agent is version {}, this sidetrackctl {}: it may not "
                                    "know what the other says",
                                    theirs, version()),
                        "use the sidetrackctl in the agent's container"});
  }
  check_programs(status, findings);
  check_engines(status, findings);
  const auto told = check_pods(status, pods, findings);
  check_addresses(pods, findings);
  check_maps(status, findings);
  check_fast_path(status, findings);
  check_problems(status, told, findings);
}

void check_no_agent(const Error& error, Own own, Findings& findings) {
  const bool hangs = error.error_number == ETIMEDOUT;
  findings.push_back(
      {Severity::kError, "agent", error.message,
       fmt::format("{}{}",
                   hangs ? "if it stays so, end it and start it again" : "start sidetrack-agent",
                   own == Own::kMissing
                       ? ""
                       : "; until then what is pinned goes on as it is, with the policy of "
                         "before")});
}

void check_others(const std::vector<dataplane::OtherInstallation>& others, Own own,
                  const std::string& pin_dir, Findings& findings) {
  if (own == Own::kMissing && others.empty()) {
    findings.push_back({Severity::kWarning, "programs",
                        fmt::format("nothing of Sidetrack is in the kernel: nothing is pinned at "
                                    "{}, and no program is attached; all traffic goes direct",
                                    pin_dir),
                        "start sidetrack-agent, or name its folder with --pin-dir"});
  }
  for (const auto& other : others) {
    const bool known = !other.pin_dir.empty();
    const auto where = fmt::format(
        "attached to cgroup {}: program st_connect4 (id {}){}", other.cgroup_dir, other.program_id,
        known ? fmt::format(", pinned at {}{}", other.pin_dir,
                            other.agent_runs ? ", its agent runs" : ", no agent runs")
              : ", its pins are not to be seen from here");
    const auto its_pins = known ? other.pin_dir : "DIR (where its pins are to be seen)";
    if (own == Own::kFound) {
      findings.push_back(
          {Severity::kError, "programs",
           fmt::format("another Sidetrack is {}: each redirects what the other has redirected",
                       where),
           fmt::format("{}sidetrack-agent uninstall --pin-dir {}",
                       other.agent_runs ? "end one of the two agents; then " : "", its_pins)});
      continue;
    }
    findings.push_back(
        {Severity::kWarning, "programs", "Sidetrack is " + where,
         other.agent_runs
             ? "ask its agent: sidetrackctl doctor --state-dir DIR, as the agent has it"
             : fmt::format("start sidetrack-agent with --pin-dir {0}: it takes over; or, if it is "
                           "not wanted, sidetrack-agent uninstall --pin-dir {0}",
                           its_pins)});
  }
}

void check_foreign(const std::vector<HookedProgram>& programs, const std::set<std::uint32_t>& ours,
                   Findings& findings) {
  for (const auto& program : programs) {
    if (ours.contains(program.id) || is_sidetracks(program)) {
      continue;
    }
    findings.push_back(
        {Severity::kWarning, "programs",
         fmt::format("another program is on {}: id {} {}", program.hook, program.id,
                     program.name.empty() ? "(no name)" : program.name),
         fmt::format(
             "both run; it may rewrite the same connections. Who it is: bpftool prog show id {}",
             program.id)});
  }
}

}  // namespace sidetrack::ctl
