// SPDX-License-Identifier: Apache-2.0
#include "agent/main/kubernetes_node.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

std::string enrolled_file(const Options& options) {
  return options.cache_dir + "/enrolled-namespaces";
}

}  // namespace

cni::install::Settings installer_settings(const Options& options) {
  std::error_code error;
  const auto beside = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  return {.conf_dir = options.cni.conf_dir,
          .bin_dir = options.cni.bin_dir,
          .binary = options.cni.binary.empty() ? beside / "sidetrack-cni"
                                               : std::filesystem::path(options.cni.binary),
          .cache_dir = options.cache_dir,
          .entry = {.socket = options.state_dir + "/cni.sock",
                    .deny_for_seconds = static_cast<std::uint32_t>(options.cni.deny_for.count()),
                    .enrolled_namespaces = enrolled_file(options),
                    .log_file = options.cni.log_file,
                    .on_agent_down = options.cni.deny_when_down ? "deny" : "allow",
                    .own_namespace = options.namespace_name,
                    .status_checks_agent = options.cni.status_checks_agent,
                    .timeout_ms = static_cast<std::uint32_t>(options.cni.timeout.count())}};
}

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
    : context_(context),
      options_(options),
      host_(std::move(host)),
      source_(std::move(source)),
      pods_(std::move(system), options.node_name),
      door_timer_(context),
      door_(pods_.table(), door_node()),
      server_(context, door_, host_.on_cni, cni::timings_for(options.cni.timeout)),
      enrolled_(enrolled_file(options)),
      late_(enrolled_.read()),
      events_(options.node_name) {}

CniDoor::Node KubernetesNode::door_node() {
  return {.timeout = options_.cni.timeout,
          .now = [] { return pods::Clock::now(); },
          .standing = [this](const std::string& pod_namespace, const std::string& name,
                             const std::string& uid) { return standing(pod_namespace, name, uid); },
          .uid_of = [this](const std::string& pod_namespace,
                           const std::string& name) { return uid_of(pod_namespace, name); },
          .leaves = [this](UniqueFd netns) { host_.on_netns_leaves(std::move(netns)); },
          .netns_changed =
              [this] {
                // A namespace that was let go is gone for the reconciler, connections and all.
                host_.reconciler.on_netns_changed(reconcile::Clock::now());
                host_.apply();
              },
          .ready = [this]() -> Result<void> {
            return host_.ready() ? Result<void>()
                                 : make_error(ErrorCode::kBusy,
                                              "the agent is not ready (sidetrackctl doctor)");
          },
          .wake_at = [this](CniDoor::Clock::time_point time) { settle_at(time); }};
}

void KubernetesNode::settle_at(CniDoor::Clock::time_point time) {
  if (door_timer_.expiry() == time) {
    return;  // under way
  }
  door_timer_.expires_at(time);
  door_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) {
      door_.settle();
    }
  });
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
      // Its first process, which tells, comes after ADD.
      return status->reason == reconcile::kRuntimeNotSeen ||
                     status->reason == reconcile::kRuntimeHidden
                 ? Standing::kSettled
                 : Standing::kPending;
    case reconcile::PodPhase::kDrift:
      return status->row && status->reason == "engine_down" ? Standing::kEngineDown
                                                            : Standing::kPending;
  }
  return Standing::kPending;
}

Result<void> KubernetesNode::listen() {
  door_.open();
  ST_TRY(server_.listen(options_.state_dir + "/cni.sock"));
  if (!options_.cni.conf_dir.empty()) {
    install_plugin();
  }
  return {};
}

void KubernetesNode::install_plugin() {
  installer_.emplace(
      context_, installer_settings(options_),
      cni::install::Callbacks{
          .on_conflict =
              [this](const std::string& text) {
                log_event(LogLevel::kError, "cni", "conflict", {{"detail", text}});
                source_->create_event(events_.degraded(text));
              },
          .on_change =
              [](const cni::install::Status& status) {
                if (status.problem.empty()) {
                  log_event(LogLevel::kInfo, "cni", "installed",
                            {{"file", status.file}, {"network", status.network}});
                } else {
                  log_event(LogLevel::kWarn, "cni", "not_installed", {{"detail", status.problem}});
                }
              }});
  installer_->start();
}

void KubernetesNode::fill(std::vector<policy::PodIntent>& intents) {
  pods_.look(host_.objects, pods::Clock::now());
  pods_.fill(host_.objects, intents);
}

void KubernetesNode::applied() {
  write_enrolled_namespaces();
  door_.settle();
}

void KubernetesNode::tick(bool are_known) {
  if (are_known) {
    if (pods_.look(host_.objects, pods::Clock::now())) {
      host_.apply();
    }
    door_.settle();
  }
  const auto fresh = enrolled_.keep_fresh(pods::Clock::now());
  if (!fresh && (are_known || fresh.error().code != ErrorCode::kNotFound)) {
    log_event(LogLevel::kWarn, "cni", "enrolled_list_not_fresh",
              {{"detail", fresh.error().message}});
  }
}

void KubernetesNode::tell(const std::vector<reconcile::PodStatus>& pods,
                          const std::vector<admin::ProblemView>& of_node) {
  for (const kube::ClusterEvent& event :
       events_.look(pods, host_.objects, host_.problems, EventWatch::Clock::now())) {
    source_->create_event(event);
  }
  if (const auto event = events_.look_at_node(of_node, EventWatch::Clock::now())) {
    source_->create_event(*event);
  }
  // Without the plugin every pod is captured a moment after its start: that is no news.
  if (installer_) {
    tell_of_late_pods(pods);
  }
}

void KubernetesNode::tell_of_late_pods(const std::vector<reconcile::PodStatus>& pods) {
  const auto running_since = [this](const reconcile::PodStatus& pod) {
    const auto object = host_.objects.pods.find(pod.intent.namespace_name + "/" + pod.intent.name);
    return object == host_.objects.pods.end()
               ? std::nullopt
               : pods_.table().place(kubelet_uid(object->second)).running_since;
  };
  for (const LatePod& pod : late_.look(pods, running_since)) {
    log_event(
        LogLevel::kWarn, "pods", "captured_late",
        {{"namespace", pod.namespace_name}, {"pod", pod.name}, {"milliseconds", pod.late.count()}});
    source_->create_event(EventWatch::captured_late(pod, host_.objects));
  }
}

void KubernetesNode::ask_whether_gone(std::function<void(bool)> done) {
  if (options_.daemonset.empty()) {
    done(false);
    return;
  }
  source_->ask_daemonset(options_.daemonset, [done = std::move(done)](kube::Existence existence) {
    done(existence == kube::Existence::kGone);
  });
}

bool KubernetesNode::knows_all() const {
  const kube::KubernetesStatus status = source_->status();
  return std::all_of(status.resources.begin(), status.resources.end(),
                     [](const kube::ResourceStatus& one) {
                       // Of the node only its zone is used: to know less is no reason to wait.
                       return one.listed || one.cached != 0 || one.resource == "nodes";
                     });
}

admin::KubernetesView KubernetesNode::view() const {
  const kube::KubernetesStatus status = source_->status();
  admin::KubernetesView view;
  for (const kube::ResourceStatus& one : status.resources) {
    view.resources.push_back({.resource = one.resource,
                              .listed = one.listed,
                              .objects = one.objects,
                              .relists = one.relists,
                              .failures = one.failures,
                              .last_event = one.last_event,
                              .cached = one.cached,
                              .problem = one.problem});
  }
  view.events_sent = status.events.sent;
  view.events_suppressed = status.events.suppressed;
  view.events_failed = status.events.failed;
  view.pods_captured_late = late_.total();
  if (installer_) {
    const cni::install::Status& installed = installer_->status();
    view.cni_file = installed.file;
    view.cni_network = installed.network;
    view.cni_problem = installed.problem;
    for (const auto& [cause, count] : installed.rewrites) {
      view.conflist_rewrites[std::string(cni::install::name_of(cause))] = count;
    }
  }
  return view;
}

void KubernetesNode::write_enrolled_namespaces() {
  std::set<std::string> names;
  for (const auto& [name, one] : host_.objects.namespaces) {
    if (policy::enrols_pods(one.metadata)) {
      names.insert(name);
    }
  }
  late_.on_enrolled(names, LateWatch::Clock::now());
  if (auto written = enrolled_.write(names); !written) {
    log_event(LogLevel::kWarn, "cni", "enrolled_list_failed",
              {{"detail", written.error().message}});
  }
}

}  // namespace sidetrack::agent
