// SPDX-License-Identifier: Apache-2.0
#include "tests/dataplane/fast_list.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/lab/pattern.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {

namespace {

struct Service {
  std::string v4, v6;
};

// Addresses that nobody has: the node translates them.
Service service_of(const std::string& world) {
  return world == "shop" ? Service{"10.96.0.10", "fd00:10:96::10"}
                         : Service{"10.96.0.11", "fd00:10:96::11"};
}

// All messages of one run may go by TCP when the agent gets no time, when the list takes longer
// than a minute, or when a reader that reads all the time is always met inside a call.
bool may_go_by_tcp(const FastCounts& counts) {
  const auto counted = [&](const char* reason) { return counts.refused.contains(reason); };
  return counted("fp_agent_away") || counted("fp_refresh") || counted("fp_reader_busy");
}

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(fmt::format("{}: {}", what, ::strerrorname_np(errno)));
}

}  // namespace

std::string name_of(const Road& road) {
  static constexpr std::array<const char*, 3> kWhere{"veth", "loopback", "service"};
  static constexpr std::array<const char*, 3> kIp{"v4", "v6", "mapped"};
  return fmt::format("{} {}{}", kWhere.at(static_cast<std::size_t>(road.where)),
                     kIp.at(static_cast<std::size_t>(road.ip)),
                     road.cpu == Cpu::kOther ? " rps" : "");
}

const std::vector<Road>& all_roads() {
  static const std::vector<Road> kRoads = [] {
    std::vector<Road> roads;
    for (const Where where : {Where::kVeth, Where::kLoopback, Where::kService}) {
      for (const Ip ip : {Ip::kV4, Ip::kV6, Ip::kMapped}) {
        roads.push_back({where, ip, Cpu::kSame});
      }
    }
    if (std::thread::hardware_concurrency() > 1) {
      roads.push_back({Where::kVeth, Ip::kV4, Cpu::kOther});
      roads.push_back({Where::kLoopback, Ip::kV6, Cpu::kOther});
    }
    return roads;
  }();
  return kRoads;
}

std::size_t many(std::size_t otherwise) {
  const char* given = std::getenv("ST_MANY_CONNECTIONS");
  return given == nullptr ? otherwise : std::strtoul(given, nullptr, 10);
}

Address address_of(const std::string& text, std::uint16_t port) {
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size = sizeof(*v4);
  } else if (::inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size = sizeof(*v6);
  }
  return address;
}

void FastList::SetUp() {
  FastNode::SetUp();
  if (IsSkipped() || HasFatalFailure()) {
    return;
  }
  ST_ASSERT_OK(cgroup_->add(::getpid()));
  for (const auto& [name, world] : {std::pair{"shop", &shop_}, std::pair{"plain", &plain_}}) {
    const Service service = service_of(name);
    filter(lab_->node(), Ip::kV4,
           fmt::format("-t nat -A PREROUTING -p tcp -d {} -j DNAT --to-destination {}", service.v4,
                       world->server->v4));
    filter(lab_->node(), Ip::kV6,
           fmt::format("-t nat -A PREROUTING -p tcp -d {} -j DNAT --to-destination {}", service.v6,
                       world->server->v6));
  }
  for (const Ip ip : {Ip::kV4, Ip::kV6}) {
    filter(lab_->node(), ip, "-t nat -A POSTROUTING -p tcp -j MASQUERADE");
  }
}

void FastList::filter(const Netns& netns, Ip ip, const std::string& arguments) {
  CommandSpec command{.arguments = {ip == Ip::kV6 ? "ip6tables" : "iptables", "-w"},
                      .netns_path = netns.path()};
  std::istringstream words(arguments);
  for (std::string word; words >> word;) {
    command.arguments.push_back(word);
  }
  const auto done = run_command(command);
  ASSERT_TRUE(done && done->exit_status == 0) << (done ? done->output : done.error().message);
}

void FastList::set_rps(Cpu cpu) const {
  set_rps(shop_, cpu);
  set_rps(plain_, cpu);
}

void FastList::set_rps(const World& world, Cpu cpu) {
  for (const Pod* pod : {world.client, world.server}) {
    for (const char* device : {"eth0", "lo"}) {
      ST_ASSERT_OK(pod->netns.set_rps(device, cpu == Cpu::kOther ? "2" : "0"));
    }
  }
}

UniqueFd FastList::socket_in(const Pod& pod, int family, int protocol) {
  return pod.netns
      .call([&]() -> Result<UniqueFd> {
        UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
        if (!fd.valid()) {
          return errno_error("socket", errno);
        }
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        return fd;
      })
      .value();
}

UniqueFd FastList::listen_in(const World& world, const Road& road, int backlog) {
  UniqueFd fd = socket_in(*world.server, road.ip == Ip::kV4 ? AF_INET : AF_INET6);
  Address any = address_of(road.ip == Ip::kV4 ? "0.0.0.0" : "::", 0);
  if (::bind(fd.get(), any.get(), any.size) != 0 || ::listen(fd.get(), backlog) != 0) {
    fail("listen");
  }
  return fd;
}

Address FastList::target_of(const World& world, const Road& road, const UniqueFd& listener) const {
  const bool v6 = road.ip == Ip::kV6;
  const Service service = service_of(&world == &shop_ ? "shop" : "plain");
  const std::uint16_t port = port_of(listener, ::getsockname);
  switch (road.where) {
    case Where::kVeth:
      return address_of(v6 ? world.server->v6 : world.server->v4, port);
    case Where::kLoopback:
      return address_of(v6 ? "::1" : "127.0.0.1", port);
    case Where::kService:
      return address_of(v6 ? service.v6 : service.v4, port);
  }
  return {};
}

Ends FastList::open_on(const World& world, const Road& road) const {
  const UniqueFd listener = listen_in(world, road);
  Address target = target_of(world, road, listener);
  Ends ends;
  ends.client = socket_in(client_of(world, road), target.storage.ss_family);
  if (::connect(ends.client.get(), target.get(), target.size) != 0 && errno != EINPROGRESS) {
    fail("connect");
  }
  ends.server = accept_from(listener);
  if (!ends.server.valid()) {
    fail("accept " + name_of(road));
  }
  set_option(ends.server, IPPROTO_TCP, TCP_NODELAY, 1);
  return ends;
}

void FastList::expect_all(const std::vector<Case>& cases, const std::vector<Road>& roads) {
  struct Run {
    const Case* one;
    const Road* road;
    Ends slow, fast;
  };
  std::vector<Run> runs;
  std::vector<Ends*> all;
  for (const Road& road : roads) {
    for (const Case& one : cases) {
      for (int i = 0; i < one.times; ++i) {
        runs.push_back({&one, &road, open_on(plain_, road), open_on(shop_, road)});
      }
    }
  }
  for (Run& run : runs) {
    all.push_back(&run.fast);
  }
  ASSERT_NO_FATAL_FAILURE(make_fast(all));
  Cpu cpu = Cpu::kSame;
  Seen seen;
  for (Run& run : runs) {
    if (run.road->cpu != std::exchange(cpu, run.road->cpu)) {
      ASSERT_NO_FATAL_FAILURE(set_rps(cpu));
    }
    compare(*run.one, *run.road, run.slow, run.fast, seen);
  }
  std::vector<const Case*> all_cases;
  for (const Case& one : cases) {
    all_cases.push_back(&one);
  }
  expect_seen(all_cases, seen);
}

void FastList::expect_apart(const Case& one, const std::vector<Road>& roads) {
  const char* mode = handoff_ ? "redirect" : "passthrough";
  std::vector<World> worlds(roads.size());
  std::vector<Ends> fast(roads.size());
  std::vector<Ends*> all;
  for (std::size_t i = 0; i < roads.size(); ++i) {
    const std::string name = fmt::format("apart-{}", apart_++);
    ST_ASSERT_OK(
        objects_->put(NamespaceSpec{.name = name, .labels = {{"sidetrack.io/mode", mode}}}));
    ASSERT_NO_FATAL_FAILURE(make_world(worlds[i], name));
    for (const char* pod : {"client", "server"}) {
      ST_ASSERT_OK(sidetrack_->wait_for_pod(name + "/" + pod, "enrolled", mode));
    }
    fast[i] = open_on(worlds[i], roads[i]);
    all.push_back(&fast[i]);
  }
  ASSERT_NO_FATAL_FAILURE(make_fast(all));
  Seen seen;
  for (std::size_t i = 0; i < roads.size(); ++i) {
    Ends slow = open_on(plain_, roads[i]);
    for (const World* world : {&plain_, &worlds[i]}) {
      ASSERT_NO_FATAL_FAILURE(set_rps(*world, roads[i].cpu));
    }
    compare(one, roads[i], slow, fast[i], seen);
  }
  expect_seen({&one}, seen);
}

void FastList::compare(const Case& one, const Road& road, Ends& slow, Ends& fast,
                       Seen& seen) const {
  SCOPED_TRACE(fmt::format("{}, {}", one.name, name_of(road)));
  EXPECT_EQ(one.run(slow), one.tcp) << "on plain TCP";
  const Counted run = run_counted(one.run, fast);
  if (one.fast && run.said == *one.fast) {
    seen.deviating.insert(&one);
  } else {
    EXPECT_EQ(run.said, one.tcp) << "past TCP";
    seen.alike.insert(&one);
  }
  if (run.skipped > 0) {
    seen.skipping.insert(&one);
  }
  if (run.skipped > 0 || !may_go_by_tcp(run.counts)) {
    expect_way(run, one.by_tcp);
  }
}

void FastList::expect_seen(const std::vector<const Case*>& cases, const Seen& seen) {
  for (const Case* one : cases) {
    if (one->rarely) {
      EXPECT_TRUE(seen.alike.contains(one)) << one->name << ": on no road as on TCP";
    } else {
      EXPECT_EQ(seen.deviating.contains(one), one->fast.has_value()) << one->name;
    }
    EXPECT_EQ(seen.skipping.contains(one), !one->by_tcp.has_value()) << one->name;
  }
}

std::uint64_t FastList::refused(const std::string& reason) const {
  const auto status = sidetrack_->get("/v1/status");
  return status ? status->value("fast_path_refused", nlohmann::json::object())
                      .value(reason, std::uint64_t{0})
                : 0;
}

UniqueFd accept_from(const UniqueFd& listener, milliseconds within) {
  pollfd wanted{listener.get(), POLLIN, 0};
  (void)::poll(&wanted, 1, static_cast<int>(within.count()));
  return UniqueFd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

std::uint16_t port_of(const UniqueFd& fd, int (*call)(int, sockaddr*, socklen_t*)) {
  Address address;
  address.size = sizeof(address.storage);
  if (call(fd.get(), address.get(), &address.size) != 0) {
    fail("port");
  }
  // The port is at the same place for both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

std::string words(std::initializer_list<std::string> all) {
  return fmt::format("{}", fmt::join(all, " "));
}

std::string whole(std::uint64_t length) {
  return fmt::format("{} {}", length, pattern_digest(kStreamSeed, length));
}

std::string stream(const UniqueFd& from, const UniqueFd& to, const Pace& pace) {
  Pattern pattern(kStreamSeed);
  Digest digest;
  std::vector<char> out;
  std::vector<char> in(pace.read_bytes);
  std::size_t offset = 0;
  std::uint64_t made = 0;
  const auto deadline = Clock::now() + kPatience;
  while (digest.length() < pace.length && Clock::now() < deadline) {
    bool moved = false;
    for (int i = 0; i < pace.writes; ++i) {
      if (offset == out.size()) {
        out.resize(std::min<std::uint64_t>(pace.write_bytes, pace.length - made));
        pattern.fill(out);
        made += out.size();
        offset = 0;
      }
      const ssize_t sent =
          out.empty() ? 0
                      : ::send(from.get(), out.data() + offset, out.size() - offset, MSG_NOSIGNAL);
      if (sent <= 0) {
        break;
      }
      offset += static_cast<std::size_t>(sent);
      moved = true;
    }
    const ssize_t got = ::recv(to.get(), in.data(), in.size(), 0);
    if (got > 0) {
      digest.add(std::span(in.data(), static_cast<std::size_t>(got)));
    } else if (!moved) {
      pollfd wanted{to.get(), POLLIN, 0};
      (void)::poll(&wanted, 1, 10);
    }
  }
  return fmt::format("{} {}", digest.length(), digest.hex());
}

FastList::Case::Run streams(const Pace& pace) {
  return [pace](Ends& ends) {
    return words({stream(ends.client, ends.server, pace), stream(ends.server, ends.client, pace)});
  };
}

std::string both(std::uint64_t length) {
  return whole(length) + " " + whole(length);
}

std::string read_to_end(const UniqueFd& fd) {
  Digest digest;
  std::vector<char> in(65536);
  for (;;) {
    pollfd wanted{fd.get(), POLLIN, 0};
    (void)::poll(&wanted, 1, static_cast<int>(kPatience.count()));
    const ssize_t got = ::recv(fd.get(), in.data(), in.size(), 0);
    if (got <= 0) {
      return fmt::format("{} {} {}", digest.length(), digest.hex(),
                         got == 0 ? "EOF" : ::strerrorname_np(errno));
    }
    digest.add(std::span(in.data(), static_cast<std::size_t>(got)));
  }
}

}  // namespace sidetrack::lab
