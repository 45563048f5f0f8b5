// SPDX-License-Identifier: Apache-2.0
// The reconciler's view of the real data plane, engines and namespaces.
#pragma once

#include <set>

#include "agent/dataplane/dataplane.h"
#include "agent/dataplane/netns_cookies.h"
#include "agent/engines/engine_server.h"
#include "agent/reconcile/ports.h"

namespace sidetrack::agent {

class RealKernel : public reconcile::KernelTables {
 public:
  explicit RealKernel(dataplane::Dataplane& dataplane) : dataplane_(dataplane) {}
  Result<std::uint32_t> acquire_policy(const policy::CompiledPolicy& compiled) override;
  Result<bool> holds_policy(std::uint32_t policy_id) override {
    return dataplane_.holds_policy(policy_id);
  }
  Result<std::uint32_t> namespace_slot(const std::string& name) override {
    return dataplane_.namespace_slot(name);
  }
  Result<void> upsert_pod(std::uint64_t netns_cookie, const st_pod& row) override {
    return dataplane_.upsert_pod(netns_cookie, row);
  }
  Result<void> set_tuning(std::uint64_t netns_cookie, const st_tuning& tuning) override;
  Result<void> erase_pod(std::uint64_t netns_cookie) override {
    return dataplane_.erase_pod(netns_cookie);
  }
  Result<std::optional<st_pod>> pod(std::uint64_t netns_cookie) override {
    return dataplane_.pod(netns_cookie);
  }
  // Without the guests'.
  Result<std::vector<std::pair<std::uint64_t, st_pod>>> pods() override;
  void collect_policies() override { dataplane_.collect_policies(); }

  // A namespace of our own, which is no pod's: known to the kernel, and not enrolled.
  Result<void> add_guest(std::uint64_t netns_cookie);
  // Its namespace is gone.
  Result<void> remove_guest(std::uint64_t netns_cookie);

 private:
  dataplane::Dataplane& dataplane_;
  std::set<std::uint64_t> guests_;
};

class RealEngines : public reconcile::EngineControl {
 public:
  explicit RealEngines(engines::EngineServer& server) : server_(server) {}
  void upsert_pod(const engines::PodSpec& pod) override { server_.upsert_pod(pod); }
  void remove_pod(std::uint64_t netns_cookie, bool cut) override {
    server_.remove_pod(netns_cookie, cut);
  }
  void reopen_pod(std::uint64_t netns_cookie) override { server_.reopen_pod(netns_cookie); }
  [[nodiscard]] std::optional<reconcile::EngineListeners> listeners(
      std::uint64_t netns_cookie) const override;
  [[nodiscard]] bool connected() const override { return !server_.sessions().empty(); }

 private:
  engines::EngineServer& server_;
};

class RealNetns : public reconcile::NetnsReader {
 public:
  explicit RealNetns(std::unique_ptr<dataplane::NetnsCookies> cookies)
      : cookies_(std::move(cookies)) {}
  Result<pods::NetnsFacts> inspect(const std::string& path,
                                   const pods::NetnsFacts* known) override {
    return pods::inspect_netns(
        path, [this] { return cookies_->here(); }, known);
  }
  std::optional<reconcile::FileId> identify(const std::string& path) override;
  Result<pods::NewNetns> make() {
    return pods::make_netns([this] { return cookies_->here(); });
  }

 private:
  std::unique_ptr<dataplane::NetnsCookies> cookies_;
};

}  // namespace sidetrack::agent
