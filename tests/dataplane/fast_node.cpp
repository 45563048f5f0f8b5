// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/fast_node.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <stdexcept>

#include <nlohmann/json.hpp>

namespace sidetrack::lab {

namespace {

// From the first byte to both ends armed: one second by design.
const milliseconds kAdopted = scaled(milliseconds(15'000));

std::string name_of_errno(int number) {
  const char* name = ::strerrorname_np(number);
  return name == nullptr ? "?" : name;
}

}  // namespace

bool skips_tcp(const UniqueFd& from, const UniqueFd& to) {
  const std::uint64_t before = sent_by_tcp(from);
  pass(from, to, "x");
  return sent_by_tcp(from) == before;
}

std::uint64_t sent_by_tcp(const UniqueFd& fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    throw std::runtime_error("TCP_INFO");
  }
  return info.tcpi_bytes_sent;
}

bool is_acknowledged(const UniqueFd& fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (::getsockopt(fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    throw std::runtime_error("TCP_INFO");
  }
  return info.tcpi_unacked == 0;
}

std::uint16_t port_of(const UniqueFd& fd) {
  sockaddr_in own{};
  socklen_t size = sizeof(own);
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size), 0);
  return ntohs(own.sin_port);
}

std::string source_of(const UniqueFd& fd) {
  sockaddr_storage own{};
  socklen_t size = sizeof(own);
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size), 0);
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (own.ss_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&own);
    ::inet_ntop(AF_INET, &v4->sin_addr, text.data(), text.size());
  } else {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&own);
    ::inet_ntop(AF_INET6, &v6->sin6_addr, text.data(), text.size());
  }
  const bool is_v4 = own.ss_family == AF_INET;
  return fmt::format("{}{}{}:{}", is_v4 ? "" : "[", text.data(), is_v4 ? "" : "]", port_of(fd));
}

std::string filter(const Pod& pod, const std::string& arguments) {
  const auto done = run_command(
      {.arguments = {"sh", "-c", "iptables " + arguments}, .netns_path = pod.netns.path()});
  EXPECT_TRUE(done && done->exit_status == 0) << arguments << (done ? done->output : "");
  return done ? done->output : "";
}

std::uint64_t cookie_of(const UniqueFd& fd) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  EXPECT_EQ(::getsockopt(fd.get(), SOL_SOCKET, SO_COOKIE, &cookie, &size), 0);
  return cookie;
}

void set_option(const UniqueFd& fd, int level, int option, int value) {
  EXPECT_EQ(::setsockopt(fd.get(), level, option, &value, sizeof(value)), 0) << option;
}

std::string send_text(const UniqueFd& fd, std::string_view text) {
  const ssize_t count = ::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
  if (count < 0) {
    return name_of_errno(errno);
  }
  return static_cast<std::size_t>(count) == text.size() ? "sent" : "sent in part";
}

std::string receive_text(const UniqueFd& fd, std::size_t length, int flags, milliseconds within) {
  pollfd wanted{fd.get(), POLLIN, 0};
  (void)::poll(&wanted, 1, static_cast<int>(within.count()));
  std::string bytes(length, '\0');
  const ssize_t count = ::recv(fd.get(), bytes.data(), length, flags);
  if (count < 0) {
    return name_of_errno(errno);
  }
  bytes.resize(static_cast<std::size_t>(count));
  return count == 0 ? "EOF" : "'" + bytes + "'";
}

void pass(const UniqueFd& from, const UniqueFd& to, std::string_view text) {
  EXPECT_EQ(send_text(from, text), "sent");
  EXPECT_EQ(receive_text(to, text.size()), "'" + std::string(text) + "'");
}

void use(const Ends& ends) {
  for (int i = 0; i < 8; ++i) {
    pass(ends.server, ends.client, "y");
    pass(ends.client, ends.server, "x");
  }
}

void FastNode::redirect(const std::string& name) {
  ST_ASSERT_OK(objects_->set_label(Kind::kNamespace, name, "sidetrack.io/mode", "redirect"));
  for (const char* pod : {"/client", "/server"}) {
    ST_ASSERT_OK(sidetrack_->wait_for_pod(name + pod, "enrolled", "redirect"));
  }
}

void FastNode::set_up_pods() {
  if (::geteuid() != 0) {
    GTEST_SKIP() << "needs root";
  }
  ST_ASSERT_VALUE(auto cgroup, TestCgroup::create("fast"));
  cgroup_ = std::make_unique<TestCgroup>(std::move(cgroup));
  ST_ASSERT_VALUE(auto folder, TempDir::create("objects"));
  folder_ = std::make_unique<TempDir>(std::move(folder));
  objects_ = std::make_unique<Objects>(folder_->path());
  ST_ASSERT_VALUE(lab_, Lab::create("fast"));
  ST_ASSERT_OK(objects_->put(
      NamespaceSpec{.name = "shop", .labels = {{"sidetrack.io/mode", "passthrough"}}}));
  ST_ASSERT_OK(objects_->put(NamespaceSpec{
      .name = "plain",
      .labels = {{"sidetrack.io/mode", "passthrough"}, {"sidetrack.io/fast-path", "off"}}}));
  ASSERT_NO_FATAL_FAILURE(make_world(shop_, "shop"));
  ASSERT_NO_FATAL_FAILURE(make_world(plain_, "plain"));
}

void FastNode::SetUp() {
  ASSERT_NO_FATAL_FAILURE(set_up_pods());
  if (IsSkipped()) {
    return;
  }
  ST_ASSERT_VALUE(sidetrack_,
                  Sidetrack::create(*cgroup_, {.objects_folder = objects_->folder().string(),
                                               .netns_path = lab_->node().path(),
                                               .fast_path = true,
                                               .agent_arguments = agent_arguments_,
                                               .engine_arguments = engine_arguments_}));
  const auto started = sidetrack_->start_agent();
  if (!started && started.error().code == ErrorCode::kUnsupported) {
    GTEST_SKIP() << "no fast path on this kernel: " << started.error().message;
  }
  ST_ASSERT_OK(started);
  for (const char* pod : {"shop/client", "shop/server", "plain/client", "plain/server"}) {
    ST_ASSERT_OK(sidetrack_->wait_for_pod(pod, "enrolled", "passthrough"));
  }
  if (!redirected_.empty()) {
    ST_ASSERT_OK(sidetrack_->start_engine());
  }
  for (const std::string& name : redirected_) {
    ASSERT_NO_FATAL_FAILURE(redirect(name));
  }
}

void FastNode::make_world(World& world, const std::string& name) {
  const auto put = [&](const std::string& pod_name, const Pod& pod) {
    return objects_->put(PodSpec{.namespace_name = name,
                                 .name = pod_name,
                                 .netns_path = pod.netns.path(),
                                 .addresses = {pod.v4, pod.v6}});
  };
  ST_ASSERT_VALUE(world.client, lab_->add_pod(name + "-c"));
  ST_ASSERT_VALUE(world.server, lab_->add_pod(name + "-s"));
  ST_ASSERT_OK(put("client", *world.client));
  ST_ASSERT_OK(put("server", *world.server));
  ST_ASSERT_VALUE(world.client_shell,
                  PodShell::start({world.client->netns.path(), cgroup_->path()}));
  ST_ASSERT_VALUE(world.server_shell,
                  PodShell::start({world.server->netns.path(), cgroup_->path()}));
}

// Sockets of the shell are blocking until here: before 4 round trips nobody looks at them.
UniqueFd FastNode::take(PodShell& shell, int id, Blocking blocking) {
  const auto number = shell.command("fd " + std::to_string(id)).value()["fd"].get<int>();
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, shell.process().pid(), 0)));
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
  if (!fd.valid()) {
    throw std::runtime_error("pidfd_getfd: " + name_of_errno(errno));
  }
  (void)shell.close(id).value();
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  if (blocking == Blocking::kNo) {
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  }
  return fd;
}

Ends FastNode::join(PodShell& client, PodShell& server, const Way& way) {
  const auto listener = server.listen(way.listen_on, way.port).value();
  const auto connected = client.connect(way.address, listener.port, {.bind = way.bind}).value();
  if (listener.error_number != 0 || connected.error_number != 0) {
    throw std::runtime_error("no connection: " + connected.errno_name);
  }
  const auto accepted = server.accept(listener.id).value();
  Ends ends{.client = take(client, connected.id, way.blocking),
            .server = take(server, accepted.id, way.blocking)};
  (void)server.close(listener.id).value();
  return ends;
}

Ends FastNode::open(bool fast, Route route, Blocking blocking) {
  World& world = fast ? shop_ : plain_;
  PodShell& server = *world.server_shell;
  PodShell& client = route == Route::kLoopback ? server : *world.client_shell;
  const bool v6 = route == Route::kV6;
  const std::string listen_on = route == Route::kV4         ? "0.0.0.0"
                                : route == Route::kLoopback ? "127.0.0.1"
                                                            : "::";
  const std::string address = route == Route::kLoopback ? "127.0.0.1"
                              : v6                      ? world.server->v6
                                                        : world.server->v4;
  return join(client, server, {.listen_on = listen_on, .address = address, .blocking = blocking});
}

Ends FastNode::open_fast(Route route) {
  Ends ends = open(true, route);
  make_fast({&ends});
  return ends;
}

void FastNode::make_fast(const std::vector<Ends*>& all) {
  std::size_t fast = 0;
  const bool done = eventually(handoff_ ? 2 * kAdopted : kAdopted, [&] {
    fast = 0;
    const std::uint64_t before = handoffs();
    for (const Ends* ends : all) {
      const bool there = skips_tcp(ends->client, ends->server);
      fast += (skips_tcp(ends->server, ends->client) || clients_only_) && there ? 1 : 0;
    }
    return fast == all.size() && (!handoff_ || handoffs() - before == 2 * all.size());
  });
  EXPECT_TRUE(done) << fast << " of " << all.size() << " skip TCP; " << sidetrack_->logs();
}

std::uint64_t FastNode::handoffs() const {
  return KernelView(sidetrack_->pin_dir()).fast_counts().value().handoffs;
}

FastNode::Counted FastNode::run_counted(const Scenario& scenario, Ends& ends) const {
  const KernelView kernel(sidetrack_->pin_dir());
  const FastCounts before = kernel.fast_counts().value();
  Counted run{.said = scenario(ends), .counts = kernel.fast_counts().value()};
  run.counts.messages -= before.messages;
  run.counts.handoffs -= before.handoffs;
  run.skipped = run.counts.handoffs + (handoff_ ? 0 : run.counts.messages);
  for (const auto& [reason, count] : before.refused) {
    if ((run.counts.refused[reason] -= count) == 0) {
      run.counts.refused.erase(reason);
    }
  }
  return run;
}

nlohmann::json FastNode::flow(const std::string& source, bool open) const {
  const auto page = sidetrack_->get("/v1/flows?namespace=shop");
  auto found = nlohmann::json::object();
  for (const auto& one : page ? page->at("flows") : nlohmann::json::array()) {
    if (one.at("source") == source && (one.at("end") == 0) == open) {
      found = one;
    }
  }
  return found;
}

// What is handed off counts at the client's connection, to the engine.
FastNode::PastTcp FastNode::past_tcp() const {
  PastTcp sum;
  const auto rows = sidetrack_->dump_map("st_pairs");
  EXPECT_TRUE(rows.has_value());
  for (const auto& row : rows ? *rows : nlohmann::json::array()) {
    const auto& pair = row.at("formatted").at("value");
    const auto bytes = [&](const char* field, st_pair_side side) {
      return pair.at(field).at(static_cast<std::size_t>(side)).get<std::uint64_t>();
    };
    const auto kind = pair.at("kind").get<int>();
    if (kind == ST_PAIR_TO_ENGINE) {
      sum.engines += bytes("fast_bytes", ST_SIDE_SERVER);
      sum.applications += bytes("fast_bytes", ST_SIDE_CLIENT) +
                          bytes("handoff_bytes", ST_SIDE_CLIENT) +
                          bytes("handoff_bytes", ST_SIDE_SERVER);
    } else if (kind == ST_PAIR_FROM_ENGINE) {
      sum.engines += bytes("fast_bytes", ST_SIDE_CLIENT) + bytes("handoff_bytes", ST_SIDE_CLIENT) +
                     bytes("handoff_bytes", ST_SIDE_SERVER);
      sum.applications += bytes("fast_bytes", ST_SIDE_SERVER);
    }
  }
  return sum;
}

bool FastNode::is_watched() const {
  const std::filesystem::path links = sidetrack_->pin_dir() + "/v1/links";
  return std::filesystem::exists(links / "st_sentinel_ioctl") ||
         std::filesystem::exists(links / "st_watch_ioctl");
}

std::optional<st_fast> FastNode::adopted(const UniqueFd& fd) const {
  const UniqueFd sockets(
      ::bpf_obj_get((sidetrack_->pin_dir() + "/v1/maps/st_fast_sockets").c_str()));
  EXPECT_TRUE(sockets.valid());
  const int number = fd.get();
  st_fast state{};
  return ::bpf_map_lookup_elem(sockets.get(), &number, &state) == 0 ? std::optional(state)
                                                                    : std::nullopt;
}

std::string FastNode::reason_of(const std::string& pod) const {
  const auto shown = sidetrack_->pod(pod);
  return shown ? shown->value("fast_path_reason", "") : shown.error().message;
}

void FastNode::expect_way(const Counted& run, const ByTcp& by_tcp) {
  const auto counted = testing::PrintToString(run.counts.refused);
  if (!by_tcp) {
    EXPECT_GT(run.skipped, 0U) << "all went by TCP: " << counted;
    return;
  }
  EXPECT_EQ(run.skipped, 0U) << "not by TCP: " << *by_tcp;
  EXPECT_TRUE(*by_tcp == kTakenOut || run.counts.refused.contains(*by_tcp))
      << *by_tcp << " was not counted: " << counted;
}

void FastNode::expect_same(const Scenario& scenario, Route route, const ByTcp& by_tcp) {
  Ends slow = open(false, route);
  const std::string expected = scenario(slow);
  Ends fast = open_fast(route);
  const Counted run = run_counted(scenario, fast);
  EXPECT_EQ(run.said, expected);
  EXPECT_NE(expected, "");
  expect_way(run, by_tcp);
}

}  // namespace sidetrack::lab
