// SPDX-License-Identifier: Apache-2.0
#include "agent/main/standby.h"

#include <fmt/format.h>
#include <sys/un.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/admin/http.h"
#include "agent/dataplane/dataplane.h"
#include "agent/dataplane/pinned.h"
#include "agent/kube/kubeconfig.h"
#include "agent/main/cgroups.h"
#include "agent/main/option_values.h"
#include "agent/main/traces.h"
#include "sidetrack/log/log.h"

namespace sidetrack::agent {

namespace {

namespace fs = std::filesystem;

constexpr const char* kLongestSocket = "/engine.sock";

std::string port_of(const std::string& address) {
  return address.substr(address.rfind(':') + 1);
}

Result<void> check_http(const std::string& address) {
  if (address == "off") {
    return {};
  }
  const auto bound = admin::HttpServer::bind(address);
  return bound ? Result<void>() : bound.error().within("--http");
}

// An address that the other one holds is free when it has ended; whose an older agent's is, it
// does not say.
Result<void> check_beside(const Options& options, const InstanceLock::Holder& other) {
  const auto http = check_http(options.http);
  const bool frees = other.http.empty() || port_of(other.http) == port_of(options.http);
  if (!http && (http.error().code != ErrorCode::kBusy || !frees)) {
    return http.error();
  }
  std::error_code error;
  const bool same_pins = other.pin_dir.empty() || other.pin_dir == options.pin_dir ||
                         fs::equivalent(other.pin_dir, options.pin_dir, error);
  if (!same_pins && dataplane::are_in_use(options.pin_dir)) {
    return make_error(ErrorCode::kBusy,
                      fmt::format("--pin-dir {} is another agent's: process {}, which we would "
                                  "wait for, has {}",
                                  options.pin_dir, other.process, other.pin_dir));
  }
  return {};
}

// Waits until `acquire` says something else than kBusy, or a signal comes.
Result<std::optional<InstanceLock>> wait_for(const std::function<Result<InstanceLock>()>& acquire) {
  boost::asio::io_context context;
  boost::asio::signal_set signals(context, SIGTERM, SIGINT);
  boost::asio::steady_timer timer(context);
  std::optional<InstanceLock> held;
  Result<void> outcome;
  std::function<void()> try_again = [&] {
    auto again = acquire();
    if (again || again.error().code != ErrorCode::kBusy) {
      if (again) {
        held = std::move(*again);
      } else {
        outcome = again.error();
      }
      context.stop();
      return;
    }
    timer.expires_after(std::chrono::milliseconds(50));
    timer.async_wait([&](const boost::system::error_code& error) {
      if (!error) {
        try_again();
      }
    });
  };
  signals.async_wait([&](const boost::system::error_code&, int) { context.stop(); });
  try_again();
  context.run();
  ST_TRY(outcome);
  return held;
}

// Whose they are is said before an address that is in use for the same reason.
Result<void> check_free(const Options& options) {
  if (dataplane::are_in_use(options.pin_dir)) {
    const auto lock = dataplane::lock_pins(options.pin_dir);
    if (!lock && lock.error().code == ErrorCode::kBusy) {
      return make_error(
          ErrorCode::kBusy,
          lock.error().message + ", or give this one a --pin-dir and a --cgroup of its own");
    }
    ST_TRY(lock);
  }
  return check_http(options.http);
}

// With no configuration in it yet it is waited for one; a folder that is not there is a mistake.
Result<void> check_cni_folders(const CniOptions& cni) {
  if (cni.conf_dir.empty()) {
    return {};
  }
  for (const auto& [option, path] :
       {std::pair{"cni-conf-dir", cni.conf_dir}, {"cni-bin-dir", cni.bin_dir}}) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      return invalid(option, path,
                     std::string(error ? error.message() : "not a folder") +
                         "; the folder that the node's container runtime reads is meant "
                         "(docs/helm.md has those of some platforms)");
    }
  }
  return {};
}

}  // namespace

Result<void> check_start(const Options& options) {
  std::error_code error;
  if (options.source == "files" && !fs::is_directory(options.objects_dir, error)) {
    return make_error(ErrorCode::kInvalid, fmt::format("--objects {}: {}", options.objects_dir,
                                                       error ? error.message() : "not a folder"));
  }
  if (options.source == "kubernetes" && !options.kubeconfig.empty()) {
    ST_TRY(kube::load_kubeconfig(options.kubeconfig));
  }
  ST_TRY(check_cni_folders(options.cni));
  if (options.http != "off") {
    if (auto address = admin::HttpServer::check(options.http); !address) {
      return make_error(ErrorCode::kInvalid, "--http " + address.error().message + ", or off");
    }
  }
  if (options.state_dir.size() + std::strlen(kLongestSocket) >= sizeof(sockaddr_un::sun_path)) {
    return make_error(ErrorCode::kInvalid,
                      fmt::format("--state-dir {}: too long for the path of a socket in it ({} "
                                  "bytes at most)",
                                  options.state_dir, sizeof(sockaddr_un::sun_path) - 1));
  }
  ST_TRY(find_cgroups(options));
  return dataplane::Dataplane::check_pins(options.pin_dir);
}

Result<std::optional<InstanceLock>> take_lock(const Options& options) {
  const auto acquire = [&] {
    return InstanceLock::acquire(options.state_dir,
                                 {.http = options.http, .pin_dir = options.pin_dir});
  };
  const Traces traces(options);
  auto lock = acquire();
  if (lock) {
    if (const auto free = check_free(options); !free) {
      traces.undo();
      return free.error();
    }
    return std::optional<InstanceLock>(std::move(*lock));
  }
  if (lock.error().code != ErrorCode::kBusy) {
    return lock.error();
  }
  if (!options.standby) {
    return make_error(ErrorCode::kBusy, lock.error().message + "; --standby waits for it to end");
  }
  ST_TRY(check_beside(options, InstanceLock::holder(options.state_dir)));
  log_event(LogLevel::kInfo, "agent", "standby",
            {{"ready", "false"}, {"detail", lock.error().message}});
  return wait_for(acquire);
}

}  // namespace sidetrack::agent
