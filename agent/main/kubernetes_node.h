// SPDX-License-Identifier: Apache-2.0
// What the agent has to do with Kubernetes beyond policy: the API source, the pods' network
// namespaces, and the CNI plugin's questions. Not there with source files. Only on the agent's
// thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/admin/views.h"
#include "agent/cni/cni_server.h"
#include "agent/cni/enrolled_namespaces.h"
#include "agent/kube/kubernetes_source.h"
#include "agent/main/cni_door.h"
#include "agent/main/event_watch.h"
#include "agent/main/late_watch.h"
#include "agent/main/options.h"
#include "agent/main/pod_netns.h"
#include "agent/policy/policy.h"
#include "agent/reconcile/reconciler.h"
#include "cni/install/installer.h"
#include "sidetrack/result.h"

namespace sidetrack::agent {

class KubernetesNode {
 public:
  // The agent, as this needs it. All outlive it.
  struct Host {
    const kube::ObjectSet& objects;  // the latest
    reconcile::Reconciler& reconciler;
    std::function<void()> apply;  // brings `objects` to the kernel again
    std::function<bool()> ready;
    std::function<void(UniqueFd)> on_netns_leaves;  // its interface is about to go
    // Of the objects and what the resolver made of them.
    const std::vector<kube::Problem>& problems;
    std::function<void(const cni::Served&)> on_cni;  // for metrics
  };
  [[nodiscard]] static Result<std::unique_ptr<KubernetesNode>> create(
      boost::asio::io_context& context, const Options& options, Host host);

  [[nodiscard]] kube::KubernetesSource& source() { return *source_; }
  // Every resource was listed, now or by an agent before us.
  [[nodiscard]] bool knows_all() const;
  // Opens cni.sock. Before the runtime is told of the plugin, and not before pods are known.
  [[nodiscard]] Result<void> listen();
  // Before intents go to the reconciler: the pods' namespaces.
  void fill(std::vector<policy::PodIntent>& intents);
  // After they went there: whoever waits for a pod, and the plugin's list of enrolled namespaces.
  void applied();
  // Something may have settled a pod.
  void settle() { door_.settle(); }
  // Every 250 ms. Before the objects are known there is no list yet, or that of an agent before.
  void tick(bool are_known);
  // Every 2 s: tells people, by Events, what is not as it should be. `of_node`: the problems that
  // `status` shows.
  void tell(const std::vector<reconcile::PodStatus>& pods,
            const std::vector<admin::ProblemView>& of_node);
  // Before the agent ends: whether it was the last of its DaemonSet, so that everything of
  // Sidetrack is to be taken back. `done` comes from the loop, within 2 s; false when in doubt.
  void ask_whether_gone(std::function<void(bool)> done);
  // How long a pod ran before it was captured; nothing: it was in time, as far as is known.
  [[nodiscard]] std::optional<std::chrono::milliseconds> late(std::uint64_t netns_cookie) const {
    return late_.late(netns_cookie);
  }
  // What is true of the API and the plugin's place, for status and metrics.
  [[nodiscard]] admin::KubernetesView view() const;

 private:
  KubernetesNode(boost::asio::io_context& context, const Options& options, Host host,
                 std::unique_ptr<kube::KubernetesSource> source, pods::NetnsTable::System system);
  [[nodiscard]] CniDoor::Node door_node();
  void settle_at(CniDoor::Clock::time_point time);
  [[nodiscard]] std::optional<std::string> uid_of(const std::string& pod_namespace,
                                                  const std::string& name) const;
  [[nodiscard]] Standing standing(const std::string& pod_namespace, const std::string& name,
                                  const std::string& uid) const;
  void write_enrolled_namespaces();
  void tell_of_late_pods(const std::vector<reconcile::PodStatus>& pods);
  void install_plugin();

  boost::asio::io_context& context_;
  const Options& options_;
  Host host_;
  std::unique_ptr<kube::KubernetesSource> source_;
  PodNetns pods_;
  boost::asio::steady_timer door_timer_;
  CniDoor door_;
  cni::Server server_;
  cni::EnrolledNamespaces enrolled_;
  LateWatch late_;
  std::optional<cni::install::Installer> installer_;
  EventWatch events_;
};

// What the installer needs to know of the options.
[[nodiscard]] cni::install::Settings installer_settings(const Options& options);

}  // namespace sidetrack::agent
