// SPDX-License-Identifier: Apache-2.0
#include "agent/ctl/finding.h"

#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

namespace sidetrack::ctl {
namespace {

Colour colour_of(Severity severity) {
  switch (severity) {
    case Severity::kError:
      return Colour::kRed;
    case Severity::kWarning:
      return Colour::kYellow;
    case Severity::kOk:
      return Colour::kGreen;
    case Severity::kHint:
      break;
  }
  return Colour::kNone;
}

std::vector<std::string> groups_of(const Findings& findings) {
  std::vector<std::string> groups;
  for (const auto& finding : findings) {
    if (std::find(groups.begin(), groups.end(), finding.group) == groups.end()) {
      groups.push_back(finding.group);
    }
  }
  return groups;
}

std::ptrdiff_t count(const Findings& findings, Severity severity) {
  return std::count_if(findings.begin(), findings.end(),
                       [&](const auto& one) { return one.severity == severity; });
}

std::string counted(std::ptrdiff_t number, const char* noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

}  // namespace

std::string severity_name(Severity severity) {
  switch (severity) {
    case Severity::kOk:
      return "ok";
    case Severity::kHint:
      return "hint";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      break;
  }
  return "error";
}

bool is_healthy(const Findings& findings) {
  return count(findings, Severity::kWarning) == 0 && count(findings, Severity::kError) == 0;
}

nlohmann::json to_json(const Findings& findings) {
  auto list = nlohmann::json::array();
  for (const auto& finding : findings) {
    list.push_back({{"severity", severity_name(finding.severity)},
                    {"group", finding.group},
                    {"what", finding.what},
                    {"action", finding.action}});
  }
  return {{"healthy", is_healthy(findings)}, {"findings", std::move(list)}};
}

std::string render_findings(const Findings& findings, const Painter& painter) {
  std::string out;
  for (const auto& group : groups_of(findings)) {
    out += painter.paint(group, Colour::kBold) + "\n";
    std::size_t listed = 0;
    for (const auto& finding : findings) {
      if (finding.group != group || ++listed > kMostListed) {
        continue;
      }
      const auto name = severity_name(finding.severity);
      out += fmt::format("  {}{:{}} {}\n", painter.paint(name, colour_of(finding.severity)), "",
                         7 - name.size(), printable(finding.what));
      if (!finding.action.empty()) {
        out += "          -> " + printable(finding.action) + "\n";
      }
    }
    out += and_more(listed, "sidetrackctl doctor -o json");
  }
  return out + "\n" + counted(count(findings, Severity::kError), "error") + ", " +
         counted(count(findings, Severity::kWarning), "warning") + "\n";
}

}  // namespace sidetrack::ctl
