// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/admin_fake_views.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "sidetrack/unique_fd.h"

namespace sidetrack::test {

using namespace admin;

FakeViews::FakeViews() {
  status_view.version = "0.1.0";
  status_view.agent_state = "ready";
  status_view.pid = 42;
  status_view.started = 1'700'000'000.5;
  status_view.node = "n1";
  status_view.source = "files";
  status_view.kernel = "6.1.0";
  status_view.engines = {{.kind = "embedded",
                          .state = "up",
                          .detail = "",
                          .pid = 43,
                          .last_beat_age_s = 0.25,
                          .connections = 3}};
  status_view.programs = {{.name = "st_connect4",
                           .hook = "cgroup/connect4",
                           .attached = true,
                           .cgroup_id = 1,
                           .program_id = 7,
                           .detail = ""}};
  status_view.pods_wanted = 2;
  status_view.pods_enrolled = 2;
  status_view.fast_path = "off";
  status_view.fast_path_reason = "node_off";
  status_view.fast_path_connections = 2;
  status_view.fast_path_refused = {{"fp_blocking", 7}};
  status_view.maps = {{.map = "st_pods", .entries = 2, .capacity = 4096}};
  PodView web;
  web.namespace_name = "shop";
  web.pod = "web-0";
  web.mode = "redirect";
  web.state = "enrolled";
  web.engine_ports = {15900, 15901};
  web.netns_cookie = 99;
  PodView other = web;
  other.namespace_name = "bank";
  other.pod = "db-0";
  pod_views = {web, other};
  CounterView row;
  row.namespace_name = "shop";
  row.connections = {{"redirected", 5}, {"excluded_port", 2}, {"engine_down_closed", 1}};
  row.bytes_out = {{"engine", 1000}};
  row.bytes_in = {{"engine", 2000}};
  row.flows_dropped = 4;
  counter_views = {row};
  workload_views = {{.workload = "shop/ReplicaSet/web-7f", .reason = "fp_fionread"}};
  FlowView flow;
  flow.start = 1'700'000'001.0;
  flow.end = 1'700'000'003.5;
  flow.namespace_name = "shop";
  flow.pod = "web-0";
  flow.source = "10.1.0.5:40000";
  flow.destination = "10.96.0.10:80";
  flow.endpoint = "10.1.0.9:8080";
  flow.verdict = "redirected";
  flow.reason = "redirected";
  flow.path = "engine";
  flow.bytes_out = 100;
  flow.bytes_in = 2048;
  flow.close = "fin";
  flow_views = {flow};
}

std::vector<PodView> FakeViews::pods(const std::string& namespace_name) {
  std::vector<PodView> kept;
  for (const auto& pod : pod_views) {
    if (namespace_name.empty() || pod.namespace_name == namespace_name) {
      kept.push_back(pod);
    }
  }
  return kept;
}

Result<PolicyView> FakeViews::policy(const std::string& namespace_name, const std::string& pod) {
  if (pod != "web-0") {
    return make_error(ErrorCode::kNotFound,
                      "no pod " + namespace_name + "/" + pod + "; sidetrackctl pods lists them");
  }
  return PolicyView{.namespace_name = namespace_name,
                    .pod = pod,
                    .policy_id = 5,
                    .entries = {{.name = "mode",
                                 .value = "redirect",
                                 .origin = {.object = "Namespace/shop",
                                            .key = "sidetrack.io/mode",
                                            .value = "redirect"}}}};
}

Result<ExplainView> FakeViews::explain(const std::string& namespace_name, const std::string& pod,
                                       const std::string& destination) {
  if (destination.find(':') == std::string::npos) {
    return make_error(ErrorCode::kInvalid, "\"" + destination + "\" is not ADDRESS:PORT");
  }
  ExplainView view;
  view.namespace_name = namespace_name;
  view.pod = pod;
  view.destination = destination;
  view.verdict = "direct";
  view.reason = "excluded_port";
  view.path = "direct";
  view.explanation = "Port 8500 is excluded by Namespace/shop.";
  view.fast_path = "no";
  view.fast_path_reason = "fp_off";
  view.fast_path_explanation = "the fast path is off for one of the two pods";
  view.rule = RuleView{
      .object = "Namespace/shop", .key = "sidetrack.io/exclude-outbound-ports", .value = "8500"};
  view.policy_id = 5;
  view.agrees_with_kernel = agrees;
  view.endpoints = {"10.1.0.9:8500"};
  view.service = "shop/consul";
  return view;
}

FlowPage FakeViews::flows(const FlowQuery& query) {
  last_flow_query = query;
  FlowPage page;
  for (std::size_t i = query.after_sequence; i < flow_views.size(); ++i) {
    page.flows.push_back(flow_views[i]);
  }
  page.next_sequence = flow_views.size();
  return page;
}

Result<void> FakeViews::set_bypass(bool on) {
  status_view.bypass = on;
  return {};
}

Result<void> FakeViews::forget_workload(const std::string& workload) {
  const auto gone = std::erase_if(
      workload_views, [&](const WorkloadView& view) { return view.workload == workload; });
  return gone > 0 ? Result<void>()
                  : make_error(ErrorCode::kNotFound, "workload " + workload + " is not kept");
}

Outcome run_program(const std::string& program, const std::string& arguments) {
  FILE* pipe = ::popen((program + " " + arguments + " 2>&1").c_str(), "r");
  Outcome outcome;
  std::array<char, 4096> buffer{};
  while (const auto count = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    outcome.output.append(buffer.data(), count);
  }
  const int status = ::pclose(pipe);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "st-admin-XXXXXX").string();
  path_ = ::mkdtemp(name.data()) == nullptr ? "" : name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

namespace {

std::string exchange(const UniqueFd& fd, const std::string& bytes) {
  const timeval patience{3, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  ::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  std::string answer;
  std::array<char, 65536> buffer{};
  for (;;) {
    const auto count = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
    if (count <= 0) {
      return answer;
    }
    answer.append(buffer.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

std::string exchange_unix(const std::string& path, const std::string& bytes) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return "connect failed";
  }
  return exchange(fd, bytes);
}

std::string exchange_tcp(std::uint16_t port, const std::string& bytes) {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return "connect failed";
  }
  return exchange(fd, bytes);
}

}  // namespace sidetrack::test
