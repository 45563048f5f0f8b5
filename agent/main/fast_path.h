// SPDX-License-Identifier: Apache-2.0
// The agent's part of the fast path: whether this node has it and why not, and the adoption of
// sockets with the real kernel and pods plugged in.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "agent/adopt/adoption.h"
#include "agent/adopt/visitor.h"
#include "agent/dataplane/dataplane.h"
#include "agent/kube/model.h"
#include "agent/main/adapters.h"
#include "agent/main/known_pods.h"
#include "agent/main/options.h"
#include "agent/main/self_test_child.h"
#include "agent/reconcile/reconciler.h"

namespace sidetrack::agent {

// Why the fast path is off after this self-test: "" = it is on (docs/adr/0016).
[[nodiscard]] std::string problem_after(const Result<selftest::Report>& report,
                                        const FastPathOptions& options);

class FastPath {
 public:
  // All references must outlive it; `objects` is read when it is needed.
  FastPath(boost::asio::io_context& context, const Options& options, std::string cgroup_dir,
           dataplane::Dataplane& dataplane, RealKernel& kernel, RealNetns& netns,
           const reconcile::Reconciler& reconciler, const kube::ObjectSet& objects,
           std::uint64_t node_netns_cookie);

  // Begins the self-test, and switches the fast path on when it passes. What an earlier agent
  // adopted goes on meanwhile. A kernel that cannot have it is no error.
  [[nodiscard]] Result<void> start();

  // The node's switch (`on`, `uncharged`) as it is now; takes effect at once.
  void set_switch(const FastPathOptions& wanted);

  void on_event(const st_event& event);
  void on_link(const adopt::Link& link);
  // The runtime is about to take this namespace's interface away.
  void on_netns_leaves(UniqueFd netns);
  // Every kTick.
  void tick();
  static constexpr std::chrono::milliseconds kTick{10};

  [[nodiscard]] bool on() const { return problem_.empty(); }
  // snake_case, or the kernel's words; empty = it is on.
  [[nodiscard]] const std::string& problem() const { return problem_; }
  // The same for pods: NODE_OFF, NO_SENTINEL, SELF_TEST; NONE = it is on.
  [[nodiscard]] st_fast_reason reason() const { return on() ? ST_FAST_NONE : reason_; }
  // A reason in words: of SELF_TEST, which of the two cases it is.
  [[nodiscard]] std::string text_of(st_fast_reason reason) const;
  [[nodiscard]] std::map<std::uint64_t, adopt::PodSummary> summaries() const {
    return adoption_.summaries();
  }
  // As adopt::Adoption has it. NONE: nothing is against it.
  [[nodiscard]] st_fast_reason against(std::uint64_t client, std::optional<std::uint64_t> server) {
    return on() ? adoption_.against(client, server, adopt::Clock::now()) : reason_;
  }
  // What is kept from the fast path for what a replica did, and why.
  [[nodiscard]] const std::map<std::string, st_fast_reason>& demoted_workloads() const {
    return workloads_.all();
  }
  // kNotFound; kBusy: a pod of it runs that did so itself.
  [[nodiscard]] Result<void> forget_workload(const std::string& workload);
  // For engines; -1: this kernel has no fast path.
  [[nodiscard]] int slots_fd() const;
  [[nodiscard]] std::uint64_t adopted() const { return adoption_.adopted(); }
  // By the netns cookie of the client.
  [[nodiscard]] std::map<std::uint64_t, std::uint64_t> adopted_by_client() const {
    return adoption_.adopted_by_client();
  }
  // Sockets and messages that stayed on TCP, by reason name.
  [[nodiscard]] std::map<std::string, std::uint64_t> refused() const;

 private:
  static constexpr const char* kSelfTestRunning = "self_test_running";

  [[nodiscard]] std::string find_problem() const;
  [[nodiscard]] Result<void> watch();
  // Before a pod may use it nobody pays for the sentinel.
  void follow_pods(adopt::Clock::time_point now);
  void on_demoted(std::uint64_t netns_cookie, st_fast_reason reason);
  void turn_off(std::string problem, st_fast_reason reason);
  // The same in the kernel, too: a hook that it needs is missing.
  void give_up(const Error& problem, st_fast_reason reason);
  Result<void> begin(bool has_adopted);
  [[nodiscard]] Result<void> follow_switch();
  void stop_watching();
  void hold_fins();
  [[nodiscard]] Result<void> start_self_test();
  void on_self_test(const Result<selftest::Report>& report);
  [[nodiscard]] Result<void> enable(bool charges_reader);
  void scan(adopt::Clock::time_point now);
  // Sockets that the sentinel marked: the event that told of one may have been lost.
  void find_marked(adopt::Clock::time_point now);
  // Readers that are owed a word, likewise.
  void find_owed(const std::vector<dataplane::PairRow>& rows, adopt::Clock::time_point now);
  // Rows that had no server then, and have none now, are of connections to elsewhere.
  void forget_remote(const std::vector<dataplane::PairRow>& rows);

  const Options& options_;
  FastPathOptions settings_;
  std::string cgroup_dir_;
  dataplane::Dataplane& dataplane_;
  RealKernel& kernel_;
  RealNetns& netns_;
  std::function<std::optional<std::string>(std::uint64_t)> path_of_;
  KnownPods pods_;
  adopt::Workloads workloads_;
  adopt::Visitor visitor_;
  adopt::Adoption adoption_;
  SelfTestChild self_test_;
  std::optional<selftest::Report> report_;  // of the last one that could be run
  bool testing_ = false;                    // one runs
  std::string problem_ = "starting";
  st_fast_reason reason_ = ST_FAST_SELF_TEST;  // of the problem
  bool watching_ = false;                      // the sentinel is attached
  bool holding_ = false;                       // Dataplane::hold_fins()
  bool watch_is_due_ = false;  // it could not be attached just now: no pair is looked at meanwhile
  std::uint64_t generation_ = 0;  // of the policy that adoption_ knows
  bool debts_are_due_ = false;    // it has changed since the last scan
  std::uint64_t paired_ = 0;      // as the kernel counted at the last scan
  adopt::Clock::time_point scan_at_{}, full_scan_at_{};
  std::uint64_t remote_ = 0;       // rows given back for want of a server
  std::set<std::uint64_t> alone_;  // clients without a server at the last full scan
};

}  // namespace sidetrack::agent
