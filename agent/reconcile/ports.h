// SPDX-License-Identifier: Apache-2.0
// What the reconciler needs from the outside, as interfaces: the kernel's tables, the engines, the
// namespaces. The agent plugs in the real ones (agent/main), tests an in-memory kernel with failure
// injection.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/engines/engine_server.h"
#include "agent/pods/netns.h"
#include "agent/policy/policy.h"
#include "sidetrack/abi/types.h"
#include "sidetrack/result.h"

namespace sidetrack::reconcile {

class KernelTables {
 public:
  virtual ~KernelTables() = default;
  virtual Result<std::uint32_t> acquire_policy(const policy::CompiledPolicy& compiled) = 0;
  // Whether its row is there as it was written; those of its addresses and ports are not looked at.
  virtual Result<bool> holds_policy(std::uint32_t policy_id) = 0;
  virtual Result<std::uint32_t> namespace_slot(const std::string& name) = 0;
  virtual Result<void> upsert_pod(std::uint64_t netns_cookie, const st_pod& row) = 0;
  virtual Result<void> erase_pod(std::uint64_t netns_cookie) = 0;
  // All zero: none.
  virtual Result<void> set_tuning(std::uint64_t netns_cookie, const st_tuning& tuning) = 0;
  virtual Result<std::optional<st_pod>> pod(std::uint64_t netns_cookie) = 0;
  virtual Result<std::vector<std::pair<std::uint64_t, st_pod>>> pods() = 0;
  virtual void collect_policies() = 0;
};

// The listeners of one pod as an engine reported them.
struct EngineListeners {
  std::uint16_t slot = 0;
  engines::PodListeners listeners;
};

class EngineControl {
 public:
  virtual ~EngineControl() = default;
  virtual void upsert_pod(const engines::PodSpec& pod) = 0;
  virtual void remove_pod(std::uint64_t netns_cookie, bool cut) = 0;
  virtual void reopen_pod(std::uint64_t netns_cookie) = 0;
  // Of the newest engine that is not draining and has answered; nothing if none has.
  [[nodiscard]] virtual std::optional<EngineListeners> listeners(
      std::uint64_t netns_cookie) const = 0;
  [[nodiscard]] virtual bool connected() const = 0;
};

// Which file a path leads to now.
struct FileId {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool operator==(const FileId&) const = default;
};

class NetnsReader {
 public:
  virtual ~NetnsReader() = default;
  // `known`: as pods::inspect_netns() has it.
  virtual Result<pods::NetnsFacts> inspect(const std::string& path,
                                           const pods::NetnsFacts* known) = 0;
  // Nothing if the path leads nowhere.
  virtual std::optional<FileId> identify(const std::string& path) = 0;
};

}  // namespace sidetrack::reconcile
