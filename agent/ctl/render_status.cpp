// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "agent/ctl/render.h"

namespace sidetrack::ctl {
namespace {

using nlohmann::json;

Colour state_colour(const std::string& state) {
  if (state == "ready" || state == "up") {
    return Colour::kGreen;
  }
  return state == "down" || state == "degraded" ? Colour::kRed : Colour::kYellow;
}

std::string because(const std::string& detail) {
  return detail.empty() ? "" : ": " + printable(detail);
}

std::string agent_line(const json& status, const Painter& painter, double now) {
  const auto& agent = list_of(status, "agent");
  const auto state = text_of(agent, "state");
  return fmt::format("agent      {}  {}  pid {}  up {}  node {}  source {}\n",
                     painter.paint(state, state_colour(state)), text_of(agent, "version"),
                     count_of(agent, "pid"), format_duration(now - seconds_of(agent, "started")),
                     printable(text_of(agent, "node")), text_of(agent, "source"));
}

std::string engine_lines(const json& status, const Painter& painter) {
  std::string out;
  for (const auto& engine : list_of(status, "engines")) {
    const auto state = text_of(engine, "state");
    const double beat = seconds_of(engine, "last_beat_age_s");
    out +=
        fmt::format("engine     {} {}{}", text_of(engine, "kind"),
                    painter.paint(state, state_colour(state)), because(text_of(engine, "detail")));
    if (count_of(engine, "pid") != 0) {
      out += fmt::format("  pid {}", count_of(engine, "pid"));
    }
    out += fmt::format("  beat {}  connections {}\n",
                       beat < 0 ? "never" : format_duration(beat) + " ago",
                       count_of(engine, "connections"));
  }
  return out.empty() ? "engine     " + painter.paint("none", Colour::kYellow) + "\n" : out;
}

std::string program_lines(const json& status, const Painter& painter) {
  std::size_t attached = 0;
  std::string missing;
  const auto& programs = list_of(status, "programs");
  for (const auto& program : programs) {
    if (flag_of(program, "attached")) {
      ++attached;
      continue;
    }
    missing += fmt::format("           {} {} at {}{}\n",
                           painter.paint("not attached", Colour::kRed), text_of(program, "name"),
                           text_of(program, "hook"), because(text_of(program, "detail")));
  }
  const bool complete = missing.empty() && attached > 0;
  return fmt::format("programs   {}  {}\n{}",
                     painter.paint(fmt::format("{} of {} attached", attached, programs.size()),
                                   complete ? Colour::kGreen : Colour::kRed),
                     printable(text_of(list_of(status, "agent"), "cgroup")), missing);
}

std::string pod_lines(const json& status, const Painter& painter) {
  const auto& pods = list_of(status, "pods");
  const auto drift = count_of(pods, "drift");
  auto out = fmt::format(
      "pods       wanted {}  enrolled {}  {}  skipped {}\n", count_of(pods, "wanted"),
      painter.paint(std::to_string(count_of(pods, "enrolled")),
                    drift == 0 ? Colour::kGreen : Colour::kNone),
      painter.paint(fmt::format("drift {}", drift), drift == 0 ? Colour::kNone : Colour::kRed),
      count_of(pods, "skipped"));
  for (const auto& [reason, count] : list_of(pods, "drift_reasons").items()) {
    out += fmt::format("           drift: {} {}\n", reason, count.dump());
  }
  return out;
}

std::string map_lines(const json& status, const Painter& painter) {
  std::string out;
  for (const auto& map : list_of(status, "maps")) {
    const auto entries = count_of(map, "entries");
    const auto capacity = count_of(map, "capacity");
    const auto text =
        fmt::format("{} of {} ({})", entries, capacity, format_percent(entries, capacity));
    out += fmt::format(
        "{:<10} {:<16} {}\n", out.empty() ? "maps" : "", text_of(map, "map"),
        painter.paint(text, entries * 5 > capacity * 4 ? Colour::kYellow : Colour::kNone));
  }
  return out;
}

std::string problem_text(const json& problem, const Painter& painter) {
  const auto severity = text_of(problem, "severity");
  const auto value = text_of(problem, "value");
  const auto action = text_of(problem, "action");
  return fmt::format(
      "  {} {}{}{}\n{}",
      painter.paint(severity, severity == "error" ? Colour::kRed : Colour::kYellow),
      printable(subject_of(problem)),
      value.empty() ? "" : fmt::format(" \"{}\"", printable(value, kMostCellColumns)),
      because(text_of(problem, "reason")),
      action.empty() ? "" : "    -> " + printable(action) + "\n");
}

std::string problem_lines(const json& status, const Painter& painter) {
  const auto problems = problems_of(status);
  if (problems.empty()) {
    return "problems   " + painter.paint("none", Colour::kGreen) + "\n";
  }
  auto out =
      fmt::format("problems   {}\n", painter.paint(std::to_string(problems.size()), Colour::kRed));
  for (std::size_t i = 0; i < std::min(problems.size(), kMostListed); ++i) {
    out += problem_text(*problems[i], painter);
  }
  return out + and_more(problems.size(), "sidetrackctl status -o json");
}

// What the API server said last, and where the plugin is. Nothing with source files.
std::string kubernetes_lines(const json& status, const Painter& painter, double now) {
  const auto& kubernetes = list_of(status, "kubernetes");
  if (!kubernetes.is_object()) {
    return "";
  }
  std::string counts;
  std::string problem;
  double last = 0;
  for (const auto& watch : list_of(kubernetes, "resources")) {
    counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count_of(watch, "objects"),
                          text_of(watch, "resource"));
    problem = problem.empty() ? text_of(watch, "problem") : problem;
    last = std::max(last, seconds_of(watch, "last_event"));
  }
  std::string out = fmt::format(
      "api        {}  {}{}\n", counts,
      last == 0 ? "never heard of" : "last heard of " + format_duration(now - last) + " ago",
      problem.empty() ? "" : painter.paint(because(problem), Colour::kRed));
  const auto& cni = list_of(kubernetes, "cni");
  const auto file = text_of(cni, "file");
  const auto trouble = text_of(cni, "problem");
  if (!file.empty() || !trouble.empty()) {
    out += fmt::format("cni        {}{}\n", file.empty() ? "not installed" : printable(file),
                       trouble.empty() ? "" : painter.paint(because(trouble), Colour::kRed));
  }
  return out;
}

}  // namespace

std::string render_status(const json& status, const Painter& painter, double now) {
  const bool bypass = flag_of(status, "bypass");
  return agent_line(status, painter, now) + engine_lines(status, painter) +
         fmt::format("kernel     {}\n", text_of(status, "kernel")) +
         program_lines(status, painter) + pod_lines(status, painter) +
         fmt::format("fast path  {}{}\n", text_of(status, "fast_path"),
                     because(text_of(status, "fast_path_reason"))) +
         fmt::format(
             "bypass     {}\n",
             bypass ? painter.paint("ON: new connections go direct", Colour::kRed) : "off") +
         kubernetes_lines(status, painter, now) + map_lines(status, painter) +
         problem_lines(status, painter);
}

}  // namespace sidetrack::ctl
