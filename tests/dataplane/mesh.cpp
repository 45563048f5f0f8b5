// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/mesh.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/bpf.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace sidetrack::lab {
namespace {

using nlohmann::json;

const std::vector<std::string> kServers = {"echo:7000",  "hash:7001",     "whoami:7002",
                                           "reset:7003", "greeting:7004", "silent:7005",
                                           "echo:7100",  "echo:443",      "udp:7053"};

// bpf(2) itself: a row of SK_STORAGE is named by a descriptor of this process, which bpftool has
// not. nullopt: no row.
template <typename Row, typename Key>
Result<std::optional<Row>> look_up(const std::string& pinned_map, const Key& key) {
  bpf_attr attributes{};
  attributes.pathname = reinterpret_cast<std::uint64_t>(pinned_map.c_str());
  const UniqueFd map(
      static_cast<int>(::syscall(SYS_bpf, BPF_OBJ_GET, &attributes, sizeof(attributes))));
  if (!map.valid()) {
    return errno_error("open " + pinned_map, errno);
  }
  Row row{};
  attributes = {};
  attributes.map_fd = static_cast<std::uint32_t>(map.get());
  attributes.key = reinterpret_cast<std::uint64_t>(&key);
  attributes.value = reinterpret_cast<std::uint64_t>(&row);
  if (::syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attributes, sizeof(attributes)) == 0) {
    return std::optional(row);
  }
  if (errno == ENOENT) {
    return std::optional<Row>();
  }
  return errno_error("look up a socket in " + pinned_map, errno);
}

}  // namespace

ServiceSpec Mesh::service(std::vector<Backend> backends) {
  return {.namespace_name = "depot",
          .name = "api",
          .cluster_addresses = {kServiceV4, kServiceV6},
          .port = kServicePort,
          .target_port = kEcho,
          .backends = std::move(backends)};
}

void Mesh::SetUp() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("mesh"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto folder, TempDir::create("objects"));
  folder_ = std::make_unique<TempDir>(std::move(folder));
  objects_ = std::make_unique<Objects>(folder_->path());
  ST_ASSERT_VALUE(lab_, Lab::create("mesh"));
  for (auto [pod, name] : {std::pair{&web_, "web"},
                           {&api_, "api"},
                           {&spare_, "spare"},
                           {&plain_, "plain"},
                           {&stranger_, "stranger"}}) {
    ST_ASSERT_VALUE(*pod, lab_->add_pod(name));
  }
  ST_ASSERT_OK(objects_->put(NamespaceSpec{.name = "shop", .labels = {{kMode, "redirect"}}}));
  ST_ASSERT_OK(objects_->put(NamespaceSpec{.name = "depot"}));
  for (const Pod* pod : {web_, api_, spare_, plain_}) {
    ST_ASSERT_OK(objects_->put(PodSpec{.namespace_name = pod == web_ ? "shop" : "depot",
                                       .name = pod->name,
                                       .netns_path = pod->netns.path(),
                                       .addresses = {pod->v4, pod->v6}}));
  }
  ST_ASSERT_OK(objects_->put(service({{.addresses = {api_->v4, api_->v6}}})));
  options_ = {.objects_folder = objects_->folder().string(), .netns_path = lab_->node().path()};
  start_sidetrack();
  if (HasFatalFailure()) {
    return;
  }
  ST_ASSERT_VALUE(echo_, EchoServer::start(place(*api_), kServers));
  ST_ASSERT_VALUE(shell_, PodShell::start(place(*web_)));
  ST_ASSERT_VALUE(control_, PodShell::start(place(*plain_)));
}

void Mesh::start_sidetrack() {
  ST_ASSERT_VALUE(sidetrack_, Sidetrack::create(*cgroup_, options_));
  ST_ASSERT_OK(sidetrack_->start());
  ST_ASSERT_OK(sidetrack_->wait_for_pod("shop/web", "enrolled", "redirect"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("depot/plain", "skipped", "disabled"));
}

std::string Mesh::row_mark() const {
  const auto pod = sidetrack_->pod("shop/web");
  return pod ? fmt::format("{} {} {}", (*pod)["policy_id"].dump(), (*pod)["mode"].dump(),
                           (*pod)["on_engine_loss"].dump())
             : "";
}

void Mesh::annotate(const char* key, const std::string& value) {
  const std::string before = row_mark();
  ST_ASSERT_OK(objects_->set_annotation(Kind::kNamespace, "shop", key, value));
  ASSERT_TRUE(eventually(kPatience, [&] { return row_mark() != before; })) << sidetrack_->logs();
}

void Mesh::label(const char* key, const std::string& value) {
  const std::string before = row_mark();
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, "shop", key, value));
  ASSERT_TRUE(eventually(kPatience, [&] { return row_mark() != before; })) << sidetrack_->logs();
}

void Mesh::enrol_neighbour() {
  ST_ASSERT_OK(objects_->set_label(Kind::kPod, "depot/plain", kMode, "redirect"));
  ST_ASSERT_OK(sidetrack_->wait_for_pod("depot/plain", "enrolled", "redirect"));
}

Counts Mesh::counts(const std::string& namespace_name) const {
  const auto answer = sidetrack_->get("/v1/counters");
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return {};
  }
  for (const json& row : (*answer)["counters"]) {
    if (row["namespace"] == namespace_name) {
      return row["connections"].get<Counts>();
    }
  }
  return {};
}

json Mesh::explain(const std::string& address, std::uint16_t port, const std::string& pod) const {
  const auto answer = sidetrack_->ctl({"-o", "json", "explain", pod, endpoint_text(address, port)});
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return {};
  }
  json view = json::parse(answer->standard_output, nullptr, false);
  if (view.is_discarded()) {
    ADD_FAILURE() << answer->output;
    return json::object();
  }
  return view;
}

std::vector<json> Mesh::flows_from(const std::string& source) const {
  std::vector<json> found;
  const auto answer = sidetrack_->get("/v1/flows");
  if (!answer) {
    ADD_FAILURE() << answer.error().message;
    return found;
  }
  for (const json& flow : (*answer)["flows"]) {
    if (flow["source"] == source) {
      found.push_back(flow);
    }
  }
  return found;
}

json Mesh::closed_flow(const std::string& source) const {
  json found;
  const bool came = eventually(kPatience, [&] {
    for (json& flow : flows_from(source)) {
      if (flow["close"] != "") {
        found = std::move(flow);
        return true;
      }
    }
    return false;
  });
  if (!came) {
    ADD_FAILURE() << "no closed flow from " << source;
  }
  return found;
}

std::string Mesh::source_of(PodShell& shell, int id) {
  const auto name = shell.socket_name(id);
  if (!name) {
    ADD_FAILURE() << name.error().message;
    return {};
  }
  std::string address = name->address;
  if (address.starts_with("::ffff:")) {
    address.erase(0, 7);
  }
  return endpoint_text(address, name->port);
}

Result<UniqueFd> Mesh::take(PodShell& shell, int id) {
  auto number = shell.command(fmt::format("fd {}", id));
  ST_TRY(number);
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, shell.process().pid(), 0)));
  UniqueFd socket(
      static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number->value("fd", -1), 0)));
  if (!socket.valid()) {
    return errno_error("take the shell's socket", errno);
  }
  return socket;
}

Result<std::uint64_t> Mesh::cookie(PodShell& shell, int id) {
  auto socket = take(shell, id);
  ST_TRY(socket);
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  if (getsockopt(socket->get(), SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0) {
    return errno_error("read SO_COOKIE", errno);
  }
  return cookie;
}

Result<std::string> Mesh::remembered(PodShell& shell, int id) const {
  auto socket = take(shell, id);
  ST_TRY(socket);
  auto key = cookie(shell, id);
  ST_TRY(key);
  const std::string maps = sidetrack_->pin_dir() + "/v1/maps/";
  auto state = look_up<st_socket>(maps + "st_sockets", socket->get());
  ST_TRY(state);
  auto row = look_up<st_observed>(maps + "st_observed", *key);
  ST_TRY(row);
  return std::string(*state ? "redirected" : *row ? "observed" : "");
}

std::string Mesh::role_of_connect(PodShell& shell, const std::string& address,
                                  std::uint16_t port) const {
  const auto socket = shell.connect(address, port);
  if (!socket || socket->error_number != 0) {
    return socket ? socket->errno_name : socket.error().message;
  }
  const auto role = remembered(shell, socket->id);
  const auto closed = shell.close(socket->id);
  if (!role || !closed) {
    return "error";
  }
  return role->empty() ? "none" : *role;
}

Result<bool> Mesh::is_listed(std::uint64_t socket_cookie) const {
  const std::string maps = sidetrack_->pin_dir() + "/v1/maps/";
  auto redirected = look_up<st_redirected>(maps + "st_redirected", socket_cookie);
  ST_TRY(redirected);
  auto observed = look_up<st_observed>(maps + "st_observed", socket_cookie);
  ST_TRY(observed);
  return redirected->has_value() || observed->has_value();
}

Counts plus_one(Counts counts, const std::string& reason) {
  ++counts[reason];
  return counts;
}

std::string endpoint_text(const std::string& address, std::uint16_t port) {
  return address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port)
                                                : fmt::format("[{}]:{}", address, port);
}

}  // namespace sidetrack::lab
