// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/render.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include <nlohmann/json.hpp>

namespace sidetrack::ctl {
namespace {

using nlohmann::json;

Colour colour_of(const std::string& word) {
  for (const char* good : {"enrolled", "redirected", "engine", "fast", "handoff"}) {
    if (word == good) {
      return Colour::kGreen;
    }
  }
  for (const char* bad :
       {"drift", "refused", "timeout", "killed", "engine_down", "engine_down_closed"}) {
    if (word == bad) {
      return Colour::kRed;
    }
  }
  return word == "pending" || word == "rst_local" || word == "rst_remote" ? Colour::kYellow
                                                                          : Colour::kNone;
}

Cell word(const std::string& text) {
  return {text, colour_of(text)};
}

std::string joined(const json& list) {
  std::string out;
  for (const auto& item : list) {
    out += (out.empty() ? "" : ", ") + (item.is_string() ? item.get<std::string>() : item.dump());
  }
  return out;
}

// Neighbours as a range: "15900-15903, 15910".
std::string ranges(const json& ports) {
  std::string out;
  for (auto port = ports.begin(); port != ports.end();) {
    auto last = port;
    while (std::next(last) != ports.end() && last->is_number() && std::next(last)->is_number() &&
           *std::next(last) == last->get<std::uint64_t>() + 1) {
      ++last;
    }
    out += (out.empty() ? "" : ", ") + port->dump() + (last == port ? "" : "-" + last->dump());
    port = std::next(last);
  }
  return out;
}

std::string ports_text(const json& pod) {
  const auto v4 = ranges(list_of(pod, "engine_ports"));
  const auto v6 = ranges(list_of(pod, "engine_ports_v6"));
  return v6.empty() || v6 == v4 ? v4 : v4 + (v4.empty() ? "v6 " : " v6 ") + v6;
}

// Of one whose name is not known its first address.
std::string pod_column(const json& object) {
  const auto& addresses = list_of(object, "addresses");
  const auto pod = text_of(object, "pod");
  return pod.empty() && !addresses.empty()
             ? fmt::format("({})", addresses.front().get<std::string>())
             : pod;
}

std::string pod_name(const json& object) {
  const auto pod = pod_column(object);
  return pod.empty() ? text_of(object, "namespace") : text_of(object, "namespace") + "/" + pod;
}

std::string rule_text(const json& rule) {
  if (!rule.is_object()) {
    return "";
  }
  return printable(fmt::format("{}  {} = {}", text_of(rule, "object"), text_of(rule, "key"),
                               text_of(rule, "value")));
}

std::string duration_of(const json& flow, double now) {
  const double end = seconds_of(flow, "end");
  return format_duration((end > 0 ? end : now) - seconds_of(flow, "start"));
}

// And why it is, or was, on TCP.
Cell close_of(const json& flow) {
  const auto close = text_of(flow, "close");
  const auto reason = text_of(flow, "fast_path_reason");
  return {(close.empty() ? "open" : close) + (reason.empty() ? "" : ", " + reason),
          colour_of(close)};
}

// "no: fp_off, the fast path is off for one of the two pods"
std::string skips_tcp_text(const json& explain) {
  const auto reason = text_of(explain, "fast_path_reason");
  return text_of(explain, "fast_path") +
         (reason.empty() ? "" : ": " + reason + ", " + text_of(explain, "fast_path_explanation"));
}

}  // namespace

std::string subject_of(const json& problem) {
  const auto key = text_of(problem, "key");
  return text_of(problem, "object") + (key.empty() ? "" : " " + key);
}

std::vector<const json*> problems_of(const json& status) {
  std::vector<const json*> problems;
  for (const auto& problem : list_of(status, "problems")) {
    problems.push_back(&problem);
  }
  std::stable_partition(problems.begin(), problems.end(), [](const json* problem) {
    return text_of(*problem, "severity") == "error";
  });
  return problems;
}

std::string text_of(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_string()
             ? found->get<std::string>()
             : "";
}

std::uint64_t count_of(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_number()
             ? found->get<std::uint64_t>()
             : 0;
}

double seconds_of(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_number() ? found->get<double>()
                                                                           : 0;
}

bool flag_of(const json& object, const char* key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_boolean() && found->get<bool>();
}

const json& list_of(const json& object, const char* key) {
  static const json kEmpty = json::array();
  const auto found = object.is_object() ? object.find(key) : object.end();
  return object.is_object() && found != object.end() && found->is_structured() ? *found : kEmpty;
}

// "auto, 3 fast"
std::string fast_path_text(const json& pod) {
  const auto connections = count_of(pod, "fast_path_connections");
  return text_of(pod, "fast_path") +
         (connections == 0 ? "" : fmt::format(", {} fast", connections));
}

std::string render_pods(const json& answer, const Painter& painter) {
  Table table(
      {"NAMESPACE", "POD", "MODE", "STATE", "ENGINE PORTS", "FAST PATH", "CONNECTIONS", "REASON"});
  std::string details;
  for (const auto& pod : list_of(answer, "pods")) {
    table.add({{text_of(pod, "namespace")},
               {pod_column(pod)},
               {text_of(pod, "mode")},
               word(text_of(pod, "state")),
               {ports_text(pod)},
               {fast_path_text(pod)},
               {std::to_string(count_of(pod, "connections"))},
               {text_of(pod, "reason")}});
    if (const auto detail = text_of(pod, "reason_detail"); !detail.empty()) {
      details += printable(pod_name(pod)) + ": " + printable(detail) + "\n";
    }
    if (const auto late_s = seconds_of(pod, "captured_late_s"); late_s != 0) {
      details += fmt::format("{}: ran for {:.1f} s before it was captured\n",
                             printable(pod_name(pod)), late_s);
    }
    if (const auto reason = text_of(pod, "fast_path_reason");
        !reason.empty() && count_of(pod, "fast_path_connections") == 0) {
      details += printable(pod_name(pod)) + ": not on the fast path, " + printable(reason) + "\n";
    }
  }
  if (table.empty()) {
    return "no pods\n";
  }
  return table.render(painter) + (details.empty() ? "" : "\n" + details);
}

std::string render_policy(const json& policy, const Painter& painter) {
  Table table({"SETTING", "VALUE", "OBJECT", "KEY"});
  for (const auto& entry : list_of(policy, "entries")) {
    const auto& origin = list_of(entry, "origin");
    table.add({{text_of(entry, "name")},
               {text_of(entry, "value")},
               {text_of(origin, "object")},
               {text_of(origin, "key")}});
  }
  return fmt::format("{}  policy {}\n{}", printable(pod_name(policy)),
                     count_of(policy, "policy_id"), table.render(painter));
}

std::string render_explain(const json& explain, const Painter& painter) {
  const auto verdict = text_of(explain, "verdict");
  const auto line = [&](const char* name, const std::string& value) {
    return value.empty() ? std::string() : fmt::format("{:<10} {}\n", name, value);
  };
  auto out = fmt::format("{} -> {}: {}\n", printable(pod_name(explain)),
                         printable(text_of(explain, "destination")),
                         painter.paint(verdict, colour_of(verdict)));
  out += printable(text_of(explain, "explanation")) + "\n";
  out += line("reason", text_of(explain, "reason"));
  out += line("path", text_of(explain, "path"));
  const auto rule = explain.find("rule");
  out += line("rule", rule == explain.end() ? "" : rule_text(*rule));
  out += line("fast path", skips_tcp_text(explain));
  out += line("policy", std::to_string(count_of(explain, "policy_id")));
  out += line("service", printable(text_of(explain, "service")));
  out += line("endpoints", printable(joined(list_of(explain, "endpoints"))));
  if (!flag_of(explain, "agrees_with_kernel")) {
    out += painter.paint(
               "The kernel holds another policy than the objects ask for: this is what the kernel "
               "does. "
               "`sidetrackctl doctor` may say why.",
               Colour::kRed) +
           "\n";
  }
  return out;
}

std::string render_counters(const json& answer, const Painter& painter) {
  Table table({"NAMESPACE", "COUNTER", "NAME", "VALUE"});
  for (const auto& row : list_of(answer, "counters")) {
    const auto name = text_of(row, "namespace");
    const auto shown = name.empty() ? std::string("(outside)") : name;
    for (const auto& [key, title] : {std::pair{"connections", "connections"},
                                     {"bytes_out", "bytes out"},
                                     {"bytes_in", "bytes in"}}) {
      for (const auto& [label, value] : list_of(row, key).items()) {
        if (value.is_number() && value != 0) {
          table.add({{shown}, {title}, word(label), {value.dump()}});
        }
      }
    }
    for (const char* key : {"flows_dropped", "records_full", "storage_full", "record_fallback"}) {
      if (const auto value = count_of(row, key); value != 0) {
        table.add({{shown}, {"losses"}, {key, Colour::kYellow}, {std::to_string(value)}});
      }
    }
  }
  return table.empty() ? "nothing counted yet\n" : table.render(painter);
}

std::string render_flows(const json& answer, const Painter& painter, double now) {
  Table table({"START", "POD", "SOURCE", "DESTINATION", "ENDPOINT", "PATH", "REASON", "OUT", "IN",
               "DURATION", "END"});
  for (const auto& flow : list_of(answer, "flows")) {
    table.add({{format_clock(seconds_of(flow, "start"))},
               {pod_name(flow)},
               {text_of(flow, "source")},
               {text_of(flow, "destination")},
               {text_of(flow, "endpoint")},
               word(text_of(flow, "path")),
               word(text_of(flow, "reason")),
               {format_bytes(count_of(flow, "bytes_out"))},
               {format_bytes(count_of(flow, "bytes_in"))},
               {duration_of(flow, now)},
               close_of(flow)});
  }
  return table.empty() ? "no flows\n" : table.render(painter);
}

std::string render_workloads(const json& answer, const Painter& painter) {
  Table table({"WORKLOAD", "REASON"});
  for (const auto& workload : list_of(answer, "workloads")) {
    table.add({{text_of(workload, "workload")}, word(text_of(workload, "reason"))});
  }
  return table.empty() ? "no workload is kept from the fast path\n" : table.render(painter);
}

std::string render_bypass(const Bypass& bypass, const Painter& painter) {
  if (bypass.on) {
    // As it was asked for, so that the line can be copied.
    const auto place = bypass.pin_dir.empty() ? "" : " --pin-dir " + printable(bypass.pin_dir);
    return fmt::format(
        "bypass is {}: new connections of this node go direct, open ones stay as they are. "
        "Restarts of agent and engine do not change it.\n"
        "Undo: sidetrackctl bypass off{}\n",
        painter.paint("on", Colour::kRed), place);
  }
  return fmt::format("bypass is {}{}\n", painter.paint("off", Colour::kGreen),
                     bypass.attached
                         ? ": new connections go as their policy says."
                         : ", but no program of Sidetrack is attached: new connections go direct "
                           "until an agent starts and attaches them.");
}

std::string flow_header(const Painter& painter) {
  return painter.paint(
             fmt::format(
                 "{:<12}  {:<28}  {:<21}  {:<21}  {:<21}  {:<7}  {:<14}  {:>9}  {:>9}  {:>8}  {}",
                 "START", "POD", "SOURCE", "DESTINATION", "ENDPOINT", "PATH", "REASON", "OUT", "IN",
                 "DURATION", "END"),
             Colour::kBold) +
         "\n";
}

std::string flow_line(const json& flow, const Painter& painter) {
  const auto source = text_of(flow, "source");
  const auto endpoint = text_of(flow, "endpoint");
  const auto path = text_of(flow, "path");
  const auto close = close_of(flow);
  return printable(fmt::format(
             "{:<12}  {:<28}  {:<21}  {:<21}  {:<21}  {:<7}  {:<14}  {:>9}  {:>9}  {:>8}",
             format_clock(seconds_of(flow, "start")), pod_name(flow), source.empty() ? "-" : source,
             text_of(flow, "destination"), endpoint.empty() ? "-" : endpoint,
             path.empty() ? "-" : path, text_of(flow, "reason"),
             format_bytes(count_of(flow, "bytes_out")), format_bytes(count_of(flow, "bytes_in")),
             duration_of(flow, seconds_of(flow, "end")))) +
         "  " + painter.paint(close.text, close.colour) + "\n";
}

}  // namespace sidetrack::ctl
