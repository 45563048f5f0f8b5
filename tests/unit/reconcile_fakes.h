// SPDX-License-Identifier: Apache-2.0
// An in-memory kernel, engine and set of network namespaces for the tests of agent/reconcile.
// Failures are injected by fields; `calls` keeps the order of what was asked for.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/reconcile/reconciler.h"

namespace sidetrack::reconcile::testing {

using namespace std::chrono_literals;

using Calls = std::vector<std::string>;

struct FakeKernel : KernelTables {
  explicit FakeKernel(Calls& log) : calls(log) {}

  Result<std::uint32_t> acquire_policy(const policy::CompiledPolicy& compiled) override {
    ++acquired;
    calls.emplace_back("acquire");
    if (policies_full) {
      return make_error(ErrorCode::kFull, "map st_cidrs: update: full");
    }
    return policy_ids
        .try_emplace(compiled.fingerprint(), static_cast<std::uint32_t>(policy_ids.size() + 1))
        .first->second;
  }
  Result<bool> holds_policy(std::uint32_t id) override { return !damaged_policies.contains(id); }
  Result<std::uint32_t> namespace_slot(const std::string& name) override {
    if (slots_full) {
      return make_error(ErrorCode::kFull, "no slot");
    }
    return slots.try_emplace(name, static_cast<std::uint32_t>(slots.size() + 1)).first->second;
  }
  Result<void> upsert_pod(std::uint64_t cookie, const st_pod& row) override {
    calls.push_back("upsert " + std::to_string(cookie));
    if (rows_full && !rows.contains(cookie)) {
      return make_error(ErrorCode::kFull, "map st_pods: update: full");
    }
    if (write_error) {
      return make_error(ErrorCode::kIo, "map st_pods: update: input/output error");
    }
    ++writes;
    if (!lose_writes) {
      rows[cookie] = row;
    }
    return {};
  }
  Result<void> set_tuning(std::uint64_t cookie, const st_tuning& tuning) override {
    tunings[cookie] = tuning;
    return {};
  }
  Result<void> erase_pod(std::uint64_t cookie) override {
    calls.push_back("erase " + std::to_string(cookie));
    rows.erase(cookie);
    return {};
  }
  Result<std::optional<st_pod>> pod(std::uint64_t cookie) override {
    ++lookups[cookie];
    if (list_error) {
      return make_error(ErrorCode::kIo, "map st_pods: look up: input/output error");
    }
    const auto row = rows.find(cookie);
    return row == rows.end() ? std::optional<st_pod>() : std::optional(row->second);
  }
  Result<std::vector<std::pair<std::uint64_t, st_pod>>> pods() override {
    if (list_error) {
      return make_error(ErrorCode::kIo, "map st_pods: list: input/output error");
    }
    return std::vector<std::pair<std::uint64_t, st_pod>>(rows.begin(), rows.end());
  }
  void collect_policies() override { ++collected; }

  Calls& calls;
  std::map<std::uint64_t, st_pod> rows;
  std::map<std::uint64_t, st_tuning> tunings;
  std::map<std::uint64_t, int> lookups;
  std::map<std::string, std::uint32_t> policy_ids;
  std::set<std::uint32_t> damaged_policies;
  std::map<std::string, std::uint32_t> slots;
  int acquired = 0, writes = 0, collected = 0;
  bool rows_full = false, policies_full = false, slots_full = false, write_error = false,
       lose_writes = false, list_error = false;
};

struct FakeEngines : EngineControl {
  explicit FakeEngines(Calls& log) : calls(log) {}

  void upsert_pod(const engines::PodSpec& pod) override { pods[pod.netns_cookie] = pod; }
  void remove_pod(std::uint64_t cookie, bool cut) override {
    calls.push_back((cut ? "cut " : "leave ") + std::to_string(cookie));
    pods.erase(cookie);
    listening.erase(cookie);
  }
  void reopen_pod(std::uint64_t cookie) override {
    calls.push_back("reopen " + std::to_string(cookie));
  }
  [[nodiscard]] std::optional<EngineListeners> listeners(std::uint64_t cookie) const override {
    const auto found = listening.find(cookie);
    return found == listening.end() ? std::nullopt : std::optional(found->second);
  }
  [[nodiscard]] bool connected() const override { return up; }

  Calls& calls;
  std::map<std::uint64_t, engines::PodSpec> pods;
  std::map<std::uint64_t, EngineListeners> listening;
  bool up = true;
};

struct FakeNetns : NetnsReader {
  struct Place {
    FileId file;
    pods::NetnsFacts facts;
  };
  Result<pods::NetnsFacts> inspect(const std::string& path,
                                   const pods::NetnsFacts* known) override {
    ++inspections;
    if (known == nullptr) {
      ++lists;
      ++lists_of[path];
    }
    if (inspect_error) {
      return make_error(ErrorCode::kIo, "netns " + path + ": too many open files");
    }
    const auto place = places.find(path);
    return place == places.end() ? Result<pods::NetnsFacts>(make_error(
                                       ErrorCode::kNotFound, "netns " + path + ": no such file"))
                                 : place->second.facts;
  }
  std::optional<FileId> identify(const std::string& path) override {
    const auto place = places.find(path);
    return place == places.end() ? std::nullopt : std::optional(place->second.file);
  }
  void add(const std::string& path, std::uint64_t cookie) {
    places[path] = {.file = {.device = 4, .inode = 1000 + cookie},
                    .facts = {.cookie = cookie, .port_low = 32768, .port_high = 60999}};
  }

  std::map<std::string, Place> places;
  int inspections = 0;
  int lists = 0;                             // inspections that take no addresses over
  std::map<std::string, unsigned> lists_of;  // the same, by path
  bool inspect_error = false;
};

inline constexpr std::uint64_t kNodeCookie = 1;
inline constexpr std::uint64_t kWeb = 7001;  // netns cookie of shop/web

inline policy::PodIntent intent(const std::string& name, const std::string& path,
                                st_mode mode = ST_MODE_REDIRECT) {
  policy::PodIntent pod;
  pod.namespace_name = "shop";
  pod.name = name;
  pod.netns_path = path;
  pod.mode = mode;
  pod.compiled = std::make_shared<policy::CompiledPolicy>();
  pod.state = mode == ST_MODE_DISABLED ? policy::PodState::kSkipped : policy::PodState::kEnrol;
  pod.reason = mode == ST_MODE_DISABLED ? "mode_disabled" : "";
  return pod;
}

inline EngineListeners listeners(std::uint16_t port, std::uint64_t cookie, std::uint16_t slot = 1) {
  return {.slot = slot,
          .listeners = {.v4 = {{port, cookie}, {static_cast<std::uint16_t>(port + 1), cookie + 1}},
                        .v6 = {{port, cookie + 2}}}};
}

// A reconciler with pod shop/web in the namespace /netns/web.
class ReconcilerTest : public ::testing::Test {
 protected:
  explicit ReconcilerTest(EngineKind engine = EngineKind::kEmbedded)
      : reconciler({.engine = engine, .node_netns_cookie = kNodeCookie}, kernel, engines, netns) {
    netns.add("/netns/web", kWeb);
  }
  void apply(std::vector<policy::PodIntent> intents) { reconciler.apply(std::move(intents), now); }
  void apply_web(st_mode mode = ST_MODE_REDIRECT) { apply({intent("web", "/netns/web", mode)}); }
  // The engine answers with its listeners, as the agent's callback does.
  void listen(std::uint64_t cookie, const EngineListeners& answer) {
    engines.listening[cookie] = answer;
    reconciler.on_listening(cookie, now);
  }
  void enrol_web() {
    apply_web();
    listen(kWeb, listeners(15900, 51));
  }
  void tick(std::chrono::milliseconds later = 250ms) {
    now += later;
    reconciler.tick(now);
  }
  std::size_t audit() { return reconciler.audit(now); }
  [[nodiscard]] PodStatus status(const std::string& name) const {
    for (const PodStatus& pod : reconciler.status()) {
      if (pod.intent.name == name) {
        return pod;
      }
    }
    ADD_FAILURE() << "no status of " << name;
    return {};
  }
  [[nodiscard]] bool called(const std::string& call) const {
    return std::count(calls.begin(), calls.end(), call) != 0;
  }

  Calls calls;
  FakeKernel kernel{calls};
  FakeEngines engines{calls};
  FakeNetns netns;
  Clock::time_point now = Clock::time_point() + 1h;
  Reconciler reconciler;
};

}  // namespace sidetrack::reconcile::testing
