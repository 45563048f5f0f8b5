// SPDX-License-Identifier: Apache-2.0
// st_source_probe KUBECONFIG NODE CACHE_DIR: what the agent does with source kubernetes up to the
// kernel: keeps the snapshot, resolves policy, compiles services. A line of JSON after each:
// namespaces and pods by mode, counts, seconds taken and, from the kernel, memory.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <nlohmann/json.hpp>

#include "agent/kube/kubernetes_source.h"
#include "agent/policy/policy.h"
#include "agent/policy/services.h"

namespace sidetrack {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// "VmRSS", "VmHWM": KiB.
long memory(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) {
      return std::stol(line.substr(field.size() + 1));
    }
  }
  return 0;
}

class Probe {
 public:
  explicit Probe(std::string node) { settings_.node_name = std::move(node); }

  void on_snapshot(const kube::Snapshot& snapshot) {
    const auto begin = Clock::now();
    snapshot_ = snapshot;
    const double copied = seconds_since(begin);
    policy::Resolution resolution = policy::resolve(snapshot_.objects, settings_, last_good_);
    last_good_ = std::move(resolution.last_good);
    const double resolved = seconds_since(begin);
    routes_ = policy::compile_services(snapshot_.objects, settings_.node_name);
    const double compiled = seconds_since(begin);
    std::size_t endpoints = 0;
    for (const auto& [front, route] : routes_) {
      endpoints += route.endpoints.size();
    }
    std::map<std::string, int> modes;
    for (const policy::PodIntent& pod : resolution.pods) {
      ++modes[std::to_string(static_cast<int>(pod.mode))];
    }
    const json line = {{"complete", snapshot_.complete},
                       {"pods", snapshot_.objects.pods.size()},
                       {"modes", modes},
                       {"routes", routes_.size()},
                       {"endpoints", endpoints},
                       {"problems", snapshot_.problems.size()},
                       {"copy_s", copied},
                       {"resolve_s", resolved - copied},
                       {"compile_s", compiled - resolved},
                       {"rss_kib", memory("VmRSS")},
                       {"peak_kib", memory("VmHWM")}};
    std::puts(line.dump().c_str());
    std::fflush(stdout);
  }

 private:
  policy::NodeSettings settings_;
  policy::LastGood last_good_;
  kube::Snapshot snapshot_;
  std::map<std::string, policy::ServiceRoute> routes_;
};

int run(char** arguments) {
  boost::asio::io_context io;
  kube::KubernetesSettings settings;
  settings.kubeconfig = arguments[1];
  settings.node_name = arguments[2];
  settings.cache_dir = arguments[3];
  auto source = kube::KubernetesSource::create(io, settings);
  if (!source) {
    std::fprintf(stderr, "%s\n", source.error().message.c_str());
    return 2;
  }
  Probe probe(settings.node_name);
  (*source)->start([&](const kube::Snapshot& snapshot) { probe.on_snapshot(snapshot); });
  boost::asio::signal_set signals(io, SIGTERM);
  signals.async_wait([&](const boost::system::error_code&, int) { io.stop(); });
  io.run();
  return 0;
}

}  // namespace
}  // namespace sidetrack

int main(int count, char** arguments) {
  return count == 4 ? sidetrack::run(arguments) : 2;
}
