// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "agent/selftest/self_test.h"

namespace sidetrack::selftest {

bool Report::passed() const {
  return !checks.empty() &&
         std::all_of(checks.begin(), checks.end(), [](const Check& check) { return check.passed; });
}

std::string Report::problem() const {
  for (const Check& check : checks) {
    if (!check.passed) {
      return check.name + ": " + check.detail;
    }
  }
  return checks.empty() ? "nothing was checked" : "";
}

std::string to_table(const Report& report) {
  std::string text;
  for (const Check& check : report.checks) {
    text += fmt::format("{:<6} {:<22} {:>7.0f} ms  {}\n", check.passed ? "ok" : "FAILED",
                        check.name, check.milliseconds, check.detail);
  }
  return text + (!report.passed() ? "the fast path stays off here\n"
                 : report.charges_reader
                     ? "the fast path can be used here\n"
                     : "the fast path can be used here by --fast-path uncharged\n");
}

std::string to_json(const Report& report) {
  nlohmann::json document{{"passed", report.passed()},
                          {"charges_reader", report.charges_reader},
                          {"checks", nlohmann::json::array()}};
  for (const Check& check : report.checks) {
    document["checks"].push_back({{"name", check.name},
                                  {"passed", check.passed},
                                  {"detail", check.detail},
                                  {"milliseconds", check.milliseconds}});
  }
  return document.dump(2) + "\n";
}

Result<Report> from_json(const std::string& text) {
  const nlohmann::json document = nlohmann::json::parse(text, nullptr, false);
  if (!document.is_object() || !document.contains("checks") || !document["checks"].is_array()) {
    return make_error(ErrorCode::kInvalid, "not a report of the self-test");
  }
  Report report{.checks = {}, .charges_reader = document.value("charges_reader", false)};
  for (const nlohmann::json& check : document["checks"]) {
    report.checks.push_back({.name = check.value("name", ""),
                             .passed = check.value("passed", false),
                             .detail = check.value("detail", ""),
                             .milliseconds = check.value("milliseconds", 0.0)});
  }
  return report;
}

}  // namespace sidetrack::selftest
