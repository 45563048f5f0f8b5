// SPDX-License-Identifier: Apache-2.0
// What must hold at the end of the soak, and what is told of it.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "tests/lab/proc_stats.h"
#include "tests/soak/soak.h"

namespace sidetrack::soak {

namespace {

using nlohmann::json;

constexpr std::uint64_t kGrowthBytes = 8U << 20U;
// Least share of a world's bytes that skipped TCP: the soak is about those.
constexpr double kLeastShare = 0.05;

template <typename Counts>
std::string list(const Counts& counts) {
  std::string text;
  for (const auto& [name, count] : counts) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, count);
  }
  return text;
}

}  // namespace

Soak::Held Soak::held_by(Actor& actor) const {
  const pid_t pid = actor.process().pid();
  return {.resident = lab::resident_bytes(pid), .files = lab::open_files(pid)};
}

std::map<std::string, std::int64_t> Soak::map_entries() const {
  std::map<std::string, std::int64_t> entries;
  const auto status = sidetrack_->get("/v1/status");
  for (const json& map : status ? status->at("maps") : json::array()) {
    entries[map.at("map")] = map.at("entries").get<std::int64_t>();
  }
  return entries;
}

void Soak::count_fast_messages() {
  const auto status = sidetrack_->get("/v1/status");
  if (status) {
    refused_ = status->at("fast_path_refused").get<std::map<std::string, std::uint64_t>>();
  }
  const auto rows = sidetrack_->dump_map("st_fast_counters");
  if (!rows || rows->empty()) {
    judge_.add_finding("st_fast_counters cannot be read");
    return;
  }
  for (const json& cell : rows->front().at("formatted").at("values")) {
    fast_messages_ += cell.at("value").at("messages").get<std::uint64_t>();
    handoff_messages_ += cell.at("value").at("handoffs").get<std::uint64_t>();
  }
}

void Soak::check_growth() {
  for (const World& world : worlds_) {
    const auto home = go_home(world);
    if (!home) {
      judge_.add_finding("policy: " + home.error().message);
    }
  }
  std::map<std::string, std::int64_t> now;
  const bool same = lab::eventually(2 * lab::kPatience, [&] {
    now = map_entries();
    return std::all_of(now.begin(), now.end(), [&](const auto& entry) {
      return entry.second <= maps_before_[entry.first];
    });
  });
  if (!same || now.empty()) {
    judge_.add_finding("maps hold more than before: " + list(now) +
                       "; before: " + list(maps_before_));
  }
  for (Actor* actor : {agent_.get(), engine_.get()}) {
    const Held before = held_before_.at(actor->name());
    Held after;
    // What a request of ours held is closed a moment after its answer.
    const bool closed = lab::eventually(lab::kPatience, [&] {
      after = held_by(*actor);
      return after.files <= before.files;
    });
    growth_ +=
        fmt::format("{}: {} -> {} KiB, {} -> {} files; ", actor->name(), before.resident / 1024,
                    after.resident / 1024, before.files, after.files);
    // Before, connections were open; now none is.
    if (!closed || after.resident > before.resident + kGrowthBytes) {
      judge_.add_finding(actor->name() + " grew: " + growth_);
    }
  }
}

void Soak::check_shares() {
  const Judge::Totals& totals = judge_.totals();
  for (const World& world : worlds_) {
    const std::uint64_t bytes = totals.bytes.at(world.name);
    const std::uint64_t fast = totals.fast_bytes.at(world.name);
    if (world.habit == Habit::kPlain &&
        static_cast<double>(fast) < kLeastShare * static_cast<double>(bytes)) {
      judge_.add_finding(fmt::format("{}: {} of {} bytes skipped TCP", world.name, fast, bytes));
    }
  }
  if (const auto fast = totals.fast_bytes.at("control"); fast != 0) {
    judge_.add_finding(fmt::format("control: {} bytes skipped TCP", fast));
  }
  if (handoff_messages_ == 0) {
    judge_.add_finding("no message was handed off");
  }
}

void Soak::check_demoted() {
  for (const World& world : worlds_) {
    if (world.habit != Habit::kAsks && world.habit != Habit::kSplices) {
      continue;
    }
    for (const std::string& name : world.pods) {
      const auto pod = sidetrack_->pod(name);
      if (!pod || pod->value("fast_path_connections", std::uint64_t{1}) != 0) {
        judge_.add_finding("not demoted: " + (pod ? pod->dump() : name));
      }
    }
  }
}

std::string Soak::summary() const {
  const Judge::Totals& totals = judge_.totals();
  std::string text = fmt::format("seed {}, {} s\n", options_.seed, options_.seconds);
  text += fmt::format("connections: {}; both ends compared: {}\n", list(totals.connections),
                      totals.matched);
  for (const auto& [group, bytes] : totals.bytes) {
    const std::uint64_t fast = totals.fast_bytes.at(group);
    text += fmt::format(
        "bytes {}: {} MB, past TCP {} MB ({:.0f} %)\n", group, bytes / 1'000'000, fast / 1'000'000,
        100.0 * static_cast<double>(fast) / static_cast<double>(std::max<std::uint64_t>(1, bytes)));
  }
  text += fmt::format("messages past TCP: {}, of these past the engine too: {}\n",
                      fast_messages_ + handoff_messages_, handoff_messages_);
  text += fmt::format("messages and sockets that stayed on TCP: {}\n", list(refused_));
  text += fmt::format("kills: {}; flips: {}\n", list(kills_), list(flips_));
  text += fmt::format("ends other than planned: {}\n", list(totals.errors));
  text += fmt::format("TCP sent again: {} segments\n", list(totals.retransmits));
  text +=
      fmt::format("longest gap: {} ms, of plain TCP: {} ms; gaps: {}, of plain TCP: {}\n",
                  totals.longest_gap_ms, totals.control_gap_ms, totals.gaps, totals.control_gaps);
  text += fmt::format("seen in gaps: {}\n", list(totals.gap_kinds));
  text += fmt::format("FIONREAD said too little, at first: {}\n", totals.small_answers);
  text += fmt::format("held: {}\n", growth_);
  text += fmt::format("findings: {}\n", findings().size());
  return text;
}

}  // namespace sidetrack::soak
