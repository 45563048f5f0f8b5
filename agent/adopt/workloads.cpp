// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/workloads.h"

#include <cerrno>
#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

#include "agent/adopt/pair.h"
#include "sidetrack/log/log.h"

namespace sidetrack::adopt {

namespace {

// One that nobody has asked for in a long time need not be kept for ever.
constexpr std::size_t kMost = 10000;

st_fast_reason reason_of(const std::string& name) {
  for (int i = 0; i < ST_FAST_COUNT; ++i) {
    if (name_of(static_cast<st_fast_reason>(i)) == name) {
      return static_cast<st_fast_reason>(i);
    }
  }
  return ST_FAST_WORKLOAD;  // of another version; that it was demoted counts
}

}  // namespace

void Workloads::keep_in(std::string file) {
  file_ = std::move(file);
  if (!file_.empty()) {
    load();
  }
}

void Workloads::load() {
  std::ifstream in(file_);
  if (!in) {
    return;
  }
  const nlohmann::json document = nlohmann::json::parse(in, nullptr, false);
  if (!document.is_object()) {
    log_event(LogLevel::kWarn, "adopt", "unreadable", {{"file", file_}, {"detail", "begun anew"}});
    return;
  }
  for (const auto& [workload, reason] : document.items()) {
    if (reason.is_string() && demoted_.size() < kMost) {
      demoted_[workload] = reason_of(reason.get<std::string>());
    }
  }
}

Result<void> Workloads::save() const {
  nlohmann::json document = nlohmann::json::object();
  for (const auto& [workload, reason] : demoted_) {
    document[workload] = name_of(reason);
  }
  const std::string next = file_ + ".new";
  std::ofstream out(next, std::ios::trunc);
  out << document.dump(1) << "\n";
  out.close();
  if (!out || std::rename(next.c_str(), file_.c_str()) != 0) {
    return errno_error("write " + file_, errno);
  }
  return {};
}

st_fast_reason Workloads::demoted(const std::string& workload) const {
  const auto found = demoted_.find(workload);
  return found == demoted_.end() ? ST_FAST_NONE : found->second;
}

void Workloads::demote(const std::string& workload, st_fast_reason reason) {
  if (workload.empty() || demoted_.size() >= kMost || !demoted_.emplace(workload, reason).second) {
    return;
  }
  log_event(LogLevel::kInfo, "adopt", "workload_demoted",
            {{"workload", workload}, {"reason", name_of(reason)}});
  if (file_.empty()) {
    return;
  }
  if (auto saved = save(); !saved) {
    log_event(LogLevel::kWarn, "adopt", "not_saved", {{"detail", saved.error().message}});
  }
}

Result<void> Workloads::forget(const std::string& workload) {
  const auto found = demoted_.extract(workload);
  if (found.empty()) {
    return make_error(ErrorCode::kNotFound, "workload " + workload +
                                                " is not kept from the fast path; "
                                                "`sidetrackctl workloads` lists those that are");
  }
  if (!file_.empty()) {
    if (auto saved = save(); !saved) {
      demoted_.emplace(found.key(), found.mapped());
      return saved;
    }
  }
  log_event(LogLevel::kInfo, "adopt", "workload_forgotten", {{"workload", workload}});
  return {};
}

}  // namespace sidetrack::adopt
