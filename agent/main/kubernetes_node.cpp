// SPDX-License-Identifier: Apache-2.0
#include "agent/main/kubernetes_node.h"

#include <spdlog/spdlog.h>

#include <set>
#include <utility>

namespace sidetrack::agent {

Result<std::unique_ptr<KubernetesNode>> KubernetesNode::create(boost::asio::io_context& context,
                                                               const Options& options, Host host) {
  auto source = kube::KubernetesSource::create(context, {.kubeconfig = options.kubeconfig,
                                                         .node_name = options.node_name,
                                                         .cache_dir = options.cache_dir,
                                                         .namespace_name = options.namespace_name,
                                                         .daemonset = options.daemonset});
  ST_TRY(source);
  auto system = pods::NetnsTable::real_system();
  ST_TRY(system);
  return std::unique_ptr<KubernetesNode>(new KubernetesNode(
      context, options, std::move(host), std::move(*source), std::move(*system)));
}

KubernetesNode::KubernetesNode(boost::asio::io_context& context, const Options& options, Host host,
                               std::unique_ptr<kube::KubernetesSource> source,
                               pods::NetnsTable::System system)
    : options_(options),
      host_(std::move(host)),
      source_(std::move(source)),
      pods_(std::move(system), options.node_name),
      door_(pods_.table(), door_node()),
      server_(context, door_, host_.on_cni),
      enrolled_(options.cache_dir + "/enrolled-namespaces") {}

CniDoor::Node KubernetesNode::door_node() {
  return {.now = [] { return pods::Clock::now(); },
          .standing = [this](const std::string& pod_namespace, const std::string& name,
                             const std::string& uid) { return standing(pod_namespace, name, uid); },
          .uid_of = [this](const std::string& pod_namespace,
                           const std::string& name) { return uid_of(pod_namespace, name); },
          .netns_changed =
              [this] {
                // A namespace that was let go is gone for the reconciler, connections and all.
                host_.reconciler.tick(reconcile::Clock::now());
                host_.apply();
              },
          .ready = [this]() -> Result<void> {
            return host_.ready() ? Result<void>()
                                 : make_error(ErrorCode::kBusy,
                                              "the agent is not ready (sidetrackctl doctor)");
          }};
}

std::optional<std::string> KubernetesNode::uid_of(const std::string& pod_namespace,
                                                  const std::string& name) const {
  const auto pod = host_.objects.pods.find(pod_namespace + "/" + name);
  return pod == host_.objects.pods.end() ? std::nullopt : std::optional(kubelet_uid(pod->second));
}

Standing KubernetesNode::standing(const std::string& pod_namespace, const std::string& name,
                                  const std::string& uid) const {
  if (uid_of(pod_namespace, name) != uid) {
    return Standing::kUnknown;  // or the one of that name before it
  }
  const auto status = host_.reconciler.status_of(pod_namespace, name);
  if (!status) {
    return Standing::kPending;
  }
  switch (status->phase) {
    case reconcile::PodPhase::kEnrolled:
    case reconcile::PodPhase::kSkipped:
      return Standing::kSettled;
    case reconcile::PodPhase::kPending:
      return Standing::kPending;
    case reconcile::PodPhase::kDrift:
      // The row is there and says what becomes of its connections until an engine comes.
      return status->row && status->reason == "engine_down" ? Standing::kSettled
                                                            : Standing::kPending;
  }
  return Standing::kPending;
}

Result<void> KubernetesNode::listen() {
  return server_.listen(options_.state_dir + "/cni.sock");
}

void KubernetesNode::fill(std::vector<policy::PodIntent>& intents) {
  pods_.look(host_.objects, pods::Clock::now());
  pods_.fill(host_.objects, intents);
}

void KubernetesNode::applied() {
  write_enrolled_namespaces();
  door_.settle();
}

void KubernetesNode::tick() {
  if (pods_.look(host_.objects, pods::Clock::now())) {
    host_.apply();
  }
  door_.settle();
}

void KubernetesNode::write_enrolled_namespaces() {
  std::set<std::string> names;
  for (const auto& [name, one] : host_.objects.namespaces) {
    const auto mode = one.metadata.labels.find("sidetrack.io/mode");
    if (mode != one.metadata.labels.end() && mode->second != "disabled") {
      names.insert(name);
    }
  }
  if (auto written = enrolled_.write(names); !written) {
    spdlog::warn("component=cni event=enrolled_list_failed detail=\"{}\"", written.error().message);
  }
}

}  // namespace sidetrack::agent
