// SPDX-License-Identifier: Apache-2.0
// KubernetesSource: the objects of the Kubernetes API (docs/kubernetes-source.md), kept by list and
// watch on a thread of its own and delivered on the io_context's thread within 20 ms of a change.
// The last good state is kept on disk and delivered while the API server is away. Everything
// public: on the io_context's thread.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "agent/kube/api_event.h"
#include "agent/kube/daemonset.h"
#include "agent/kube/kubeconfig.h"
#include "agent/kube/resource_watch.h"
#include "agent/kube/source.h"
#include "sidetrack/result.h"

namespace boost::asio {
class io_context;
}

namespace sidetrack::kube {

struct KubernetesSettings {
  std::filesystem::path kubeconfig;  // empty: the pod's service account
  std::string node_name;
  std::filesystem::path cache_dir;  // its folder `kubernetes` is ours; empty: nothing is kept
  std::string namespace_name;       // our own: where events on nodes and our DaemonSet are
  std::string daemonset;            // ours, in that namespace; empty: none is followed
  std::filesystem::path service_account_dir = kServiceAccountFolder;
  WatchTimes times;
  // How long the API server may take at the start before what is on disk is delivered.
  std::chrono::milliseconds grace{2000};
};

// What is told of one resource, for status and metrics.
struct ResourceStatus {
  std::string resource;  // "pods"
  bool listed = false;   // by this process
  std::uint64_t objects = 0, events = 0, relists = 0, failures = 0;
  double last_event = 0;  // Unix time of the last word of the API server, 0 = none yet
  double cached = 0;      // not listed, and what is known is of this time; 0 = it is not
  std::string problem;    // of the last request; "" = fine
};
// Events since the start.
struct EventStatus {
  std::uint64_t sent = 0, suppressed = 0, failed = 0;
};
struct KubernetesStatus {
  std::array<ResourceStatus, kResourceCount> resources;  // in the order of Resource
  EventStatus events;
};

class KubernetesSource : public Source {
 public:
  // kInvalid, kNotFound, kPermission, kIo: the configuration cannot be used. `io` must outlive it.
  [[nodiscard]] static Result<std::unique_ptr<KubernetesSource>> create(
      boost::asio::io_context& io, KubernetesSettings settings);
  KubernetesSource(const KubernetesSource&) = delete;
  KubernetesSource& operator=(const KubernetesSource&) = delete;
  ~KubernetesSource() override;

  // The snapshot is complete once every resource has been listed; what is delivered before that is
  // from the disk or in part, and only after settings.grace or when the API server cannot be
  // reached. The snapshot stays the source's own: it changes after the listener has returned.
  void start(Listener listener) override;
  // Lists everything again.
  void refresh() override;
  // No call of the listener after this; start() may follow.
  void stop() override;

  [[nodiscard]] KubernetesStatus status() const;

  // Says something of a pod or the node to people, at most once in five minutes of the same object
  // and reason. Never waits; what cannot be sent is counted.
  void create_event(const ClusterEvent& event);

  // Whether our DaemonSet `name` is still there: kGone if the API server says that it is not, or is
  // being deleted, or said so of settings.daemonset before it took our rights away; kUnknown if it
  // cannot be asked within `limit`. `done` comes from the loop, also where we are not started; not
  // after stop().
  void ask_daemonset(const std::string& name, std::function<void(Existence)> done,
                     std::chrono::milliseconds limit = std::chrono::milliseconds(2000));

 private:
  class Run;
  KubernetesSource(boost::asio::io_context& io, KubernetesSettings settings, ApiConfig config);

  boost::asio::io_context& io_;
  KubernetesSettings settings_;
  ApiConfig config_;
  // Shared with the handlers that wait in the io_context: they may run after this is gone.
  std::shared_ptr<Run> run_;
};

}  // namespace sidetrack::kube
