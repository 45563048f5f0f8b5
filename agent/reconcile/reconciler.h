// SPDX-License-Identifier: Apache-2.0
// Brings the kernel's tables and the engines to what the resolver wants, and keeps them there:
// after every event and every tick, desired is compared with actual and repaired. Events are a
// hint. One thread; time is passed in.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agent/policy/policy.h"
#include "agent/reconcile/ports.h"
#include "agent/reconcile/row.h"

namespace sidetrack::reconcile {

using Clock = std::chrono::steady_clock;

struct Settings {
  EngineKind engine = EngineKind::kEmbedded;
  bool external_v4 = false;
  bool external_v6 = false;
  std::uint64_t node_netns_cookie = 0;  // never enrolled
};

// Reasons of a pod that is pending only because PodIntent::runtime_unseen; its row is as it should
// be. The second: PodIntent::runtime_problem, too.
inline constexpr const char* kRuntimeNotSeen = "runtime_not_seen";
inline constexpr const char* kRuntimeHidden = "runtime_hidden";

enum class PodPhase { kEnrolled, kPending, kSkipped, kDrift };

// What is true of one pod now: its row is read from the kernel when it is asked for.
struct PodStatus {
  policy::PodIntent intent;
  PodPhase phase = PodPhase::kPending;
  std::string reason;  // snake_case; empty when enrolled
  std::string detail;
  std::uint64_t netns_cookie = 0;  // 0 = not known
  std::optional<st_pod> row;       // the kernel's
  // When its row came to the kernel; nothing: an earlier agent had written one, or none is there.
  std::optional<Clock::time_point> captured_at{};
  // When it became wanted; nothing: it was as this agent first saw it.
  std::optional<Clock::time_point> wanted_since{};
  std::optional<pods::NetnsFacts> facts{};  // nothing: it was not looked into yet
};

class Reconciler {
 public:
  Reconciler(Settings settings, KernelTables& kernel, EngineControl& engines, NetnsReader& netns);

  // The desired state as a whole. Rows of pods that are not in it are removed, those that an
  // earlier agent left included.
  void apply(std::vector<policy::PodIntent> intents, Clock::time_point now);

  // An engine reported listeners for a pod, or failed to; an engine came, drains or went.
  void on_listening(std::uint64_t netns_cookie, Clock::time_point now);
  void on_listen_failed(std::uint64_t netns_cookie, const std::string& reason);
  void on_engines_changed(Clock::time_point now);
  // The kernel saw a listener of the pod close.
  void on_listener_lost(std::uint64_t netns_cookie, Clock::time_point now);

  // Every 250 ms: namespaces that went or changed, removals that are due, failed steps again.
  void tick(Clock::time_point now);
  // What tick() does about namespaces that are gone or others now, by their files alone: nobody
  // waits for namespaces to be entered. For ADD and DEL of a plugin.
  void on_netns_changed(Clock::time_point now);
  // Every 2 s: every row compared with the kernel, stale rows removed, policies collected. Returns
  // the number of repairs.
  std::size_t audit(Clock::time_point now);

  [[nodiscard]] std::vector<PodStatus> status() const;
  // Nothing: no such pod is wanted.
  [[nodiscard]] std::optional<PodStatus> status_of(const std::string& namespace_name,
                                                   const std::string& name) const;
  // nullptr = not a pod of ours. Also known for a while after the pod went (flow records arrive
  // late).
  struct Owner {
    std::string namespace_name;
    std::string name;
  };
  [[nodiscard]] const Owner* owner(std::uint64_t netns_cookie) const;
  [[nodiscard]] std::optional<std::string> netns_path(std::uint64_t netns_cookie) const;
  [[nodiscard]] const policy::PodIntent* intent(const std::string& namespace_name,
                                                const std::string& name) const;
  [[nodiscard]] std::optional<std::uint64_t> cookie(const std::string& namespace_name,
                                                    const std::string& name) const;

 private:
  struct Entry {
    policy::PodIntent intent;
    bool wanted = true;  // false: the object is gone, its namespace may still live
    std::optional<pods::NetnsFacts> facts;
    std::optional<FileId> file;
    std::string path;               // that `facts` were read from
    Clock::time_point listed_at{};  // when its addresses were last
    std::optional<st_pod> row;      // as last read back
    bool at_engine = false;
    std::optional<Clock::time_point> leave_engine_at;
    Clock::time_point retry_at{};
    std::chrono::milliseconds backoff{0};
    std::string reason, detail;  // why the last step did not come through
    std::string engine_failure;
    std::optional<Clock::time_point> captured_at{}, wanted_since{};  // as in PodStatus
  };
  using Entries = std::map<std::string, Entry>;

  void step(const std::string& key, Entry& entry, Clock::time_point now);
  void look_at_all(Clock::time_point now, std::size_t inspections);
  // Whose addresses were listed longest ago, if that is long enough; nullptr: nobody's.
  [[nodiscard]] const Entry* due_for_listing(Clock::time_point now) const;
  // False: it is another namespace, or none.
  [[nodiscard]] bool look_into(Entry& entry, Clock::time_point now, bool lists);
  [[nodiscard]] bool look_at_netns(const std::string& key, Entry& entry, Clock::time_point now);
  [[nodiscard]] Result<void> write_row(Entry& entry, Clock::time_point now);
  void place_at_engine(Entry& entry, Clock::time_point now);
  void reopen_lost(const Entry& entry);
  void fail(Entry& entry, Clock::time_point now, std::string reason, std::string detail);
  // Takes the row away; `cut`: the namespace is gone too.
  void release(Entry& entry, bool cut);
  void forget_policy_ids() { policy_ids_.clear(); }
  [[nodiscard]] Entry* find(std::uint64_t netns_cookie);
  // Whether a row that is no known pod's is nobody's.
  [[nodiscard]] bool knows_every_pod(Clock::time_point now) const;
  struct Finding {
    PodPhase phase = PodPhase::kEnrolled;
    std::string reason, detail;
  };
  [[nodiscard]] static Finding without_runtime(const policy::PodIntent& intent);
  // What the kernel holds otherwise than it was written; nothing: it holds just that.
  [[nodiscard]] std::optional<Finding> damage(const Entry& entry,
                                              const Result<std::optional<st_pod>>& in_kernel) const;
  [[nodiscard]] Finding look_at(const Entry& entry,
                                const Result<std::optional<st_pod>>& in_kernel) const;
  [[nodiscard]] PodStatus describe(const Entry& entry) const;

  Settings settings_;
  KernelTables& kernel_;
  EngineControl& engines_;
  NetnsReader& netns_;
  Entries entries_;
  std::map<std::uint64_t, std::string> keys_;  // netns cookie -> key of entries_
  std::map<std::uint64_t, Owner> owners_;
  std::map<const policy::CompiledPolicy*, std::uint32_t> policy_ids_;  // within one pass
  std::size_t next_inspection_ = 0;
  std::optional<Clock::time_point> first_apply_;
};

}  // namespace sidetrack::reconcile
