// SPDX-License-Identifier: Apache-2.0
// What the CNI plugin asks, answered from what the kernel has: ADD waits until the pod's row is
// written, within a bound. The descriptors go into the NetnsTable. Only on the agent's thread.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <optional>
#include <set>
#include <string>

#include "agent/cni/cni_server.h"
#include "agent/pods/netns_table.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

// How far a pod is.
enum class Standing {
  kUnknown,  // the API has not shown it (yet)
  kPending,
  kEngineDown,  // in the kernel, where its row says what becomes of connections meanwhile
  kSettled,     // in the kernel as it should be, or not to be enrolled
};

class CniDoor : public cni::Handler {
 public:
  using Clock = pods::Clock;
  struct Node {
    std::chrono::milliseconds timeout{};  // the plugin's own
    std::function<Clock::time_point()> now;
    std::function<Standing(const std::string& pod_namespace, const std::string& name,
                           const std::string& uid)>
        standing;
    // The kubelet's uid of a pod; nothing if the API has not shown it.
    std::function<std::optional<std::string>(const std::string& pod_namespace,
                                             const std::string& name)>
        uid_of;
    // The runtime is about to take the namespace's interface away.
    std::function<void(UniqueFd netns)> leaves;
    std::function<void()> netns_changed;
    std::function<Result<void>()> ready;
    // settle() is due at this time; it replaces the one before.
    std::function<void(Clock::time_point)> wake_at;
  };
  // Both outlive this.
  CniDoor(pods::NetnsTable& table, Node node) : table_(table), node_(std::move(node)) {}

  void add(cni::Attachment attachment, std::function<void(Result<void>)> done) override;
  void remove(const cni::AttachmentId& attachment) override;
  Result<void> check(const cni::Claim& claim) override;
  void keep_only(const std::set<cni::AttachmentId>& valid) override;
  Result<void> status() override { return node_.ready(); }

  // The agent has just started: engines that served one before it are about to come back, and
  // pods are kept waiting for them.
  void open() { engines_back_at_ = node_.now() + kEnginesComeBack; }

  // Answers those that wait and are settled by now, or have waited long enough. After everything
  // that may settle a pod, several times a second, and when wake_at() says.
  void settle();

 private:
  struct Waiting {
    std::string pod_namespace, name, uid;
    std::function<void(Result<void>)> done;
    Clock::time_point deadline;
  };

  // An engine that runs registers again within a tenth of a second. Shorter than the plugin's
  // default time.
  static constexpr std::chrono::milliseconds kEnginesComeBack{1000};

  pods::NetnsTable& table_;
  Node node_;
  std::list<Waiting> waiting_;
  Clock::time_point engines_back_at_{};
};

}  // namespace sidetrack::agent
