// SPDX-License-Identifier: Apache-2.0
// st_soak_peer server HABIT LATE_MS SEED PORT...
// st_soak_peer client HABIT LATE_MS SEED COUNT ADDRESS/PORT...
// An application of the soak, with a habit (script.h) that begins LATE_MS after its start. A server
// says {"what":"ready"} and serves until it is ended. A client keeps COUNT connections open, each
// to one of the addresses; on SIGTERM it finishes and ends. Both say how each connection ended, and
// what was wrong, in one line of JSON each.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "tests/soak/clock.h"
#include "tests/soak/endpoint.h"

namespace sidetrack::soak {
namespace {

using nlohmann::json;

constexpr int kTickMs = 5;
constexpr std::int64_t kAwakeStepMs = 40;  // the most that one round of the loop may take
constexpr std::int64_t kStarvedMs = 150;   // a round that took so long is told
constexpr int kBacklog = 1024;

volatile std::sig_atomic_t stop_asked = 0;

void say(const json& line) {
  const std::string text = line.dump() + "\n";
  if (::write(STDOUT_FILENO, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    std::exit(3);  // nobody listens any more
  }
}

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "st_soak_peer: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(2);
}

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  std::uint16_t port = 0;
};

// "10.0.0.1/80", "fd00::1/80".
Address parse(const std::string& text) {
  const std::size_t slash = text.find('/');
  const std::string host = text.substr(0, slash);
  Address address;
  address.port = static_cast<std::uint16_t>(
      std::atoi(slash == std::string::npos ? "0" : text.c_str() + slash + 1));
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(address.port);
    address.size = sizeof(sockaddr_in);
  } else if (::inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    address.size = sizeof(sockaddr_in6);
  } else {
    fail("no address: " + text);
  }
  return address;
}

class Loop {
 public:
  explicit Loop(Manner manner)
      : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
        manner_(manner),
        now_{.ms = monotonic_ms(), .awake_ms = 0} {}

  [[nodiscard]] Now now() const { return now_; }
  [[nodiscard]] std::size_t size() const { return open_.size(); }

  void add(UniqueFd fd, std::optional<Hello> hello, std::uint64_t style, std::uint16_t port) {
    const int number = fd.get();
    Open& open = open_[number];
    open.endpoint = std::make_unique<Endpoint>(std::move(fd), hello, style, manner_, now_,
                                               [port](const json& told) {
                                                 json line = told;
                                                 line["port"] = port;
                                                 say(line);
                                               });
    open.asked = open.endpoint->interest(now_);
    control(EPOLL_CTL_ADD, number, open.asked);
  }

  void add_listener(int fd) { control(EPOLL_CTL_ADD, fd, EPOLLIN); }

  void hurry() {
    for (auto& [fd, open] : open_) {
      open.endpoint->hurry();
    }
  }

  // Waits a moment, serves what is ready; gives the listeners among it.
  std::vector<int> turn() {
    std::array<epoll_event, 64> events{};
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                   busy_ ? 0 : kTickMs);
    const std::int64_t ms = monotonic_ms();
    if (ms - now_.ms >= kStarvedMs) {
      say({{"what", "starved"}, {"from", now_.ms}, {"now", ms}, {"port", 0}});
    }
    now_ = {.ms = ms, .awake_ms = now_.awake_ms + std::min(ms - now_.ms, kAwakeStepMs)};
    std::vector<int> listeners;
    for (int i = 0; i < count; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      const auto open = open_.find(event.data.fd);
      if (open == open_.end()) {
        listeners.push_back(event.data.fd);
      } else {
        open->second.endpoint->on_events(event.events);
      }
    }
    serve_all();
    return listeners;
  }

 private:
  struct Open {
    std::unique_ptr<Endpoint> endpoint;
    std::uint32_t asked = 0;
  };

  void control(int operation, int fd, std::uint32_t events) const {
    epoll_event event{.events = events, .data = {}};
    event.data.fd = fd;
    if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0) {
      fail("epoll_ctl");
    }
  }

  void serve_all() {
    busy_ = false;
    for (auto& [fd, open] : open_) {
      busy_ = open.endpoint->work(now_) || busy_;
      const std::uint32_t wanted = open.endpoint->is_over() ? 0 : open.endpoint->interest(now_);
      if (!open.endpoint->is_over() && wanted != open.asked) {
        open.asked = wanted;
        control(EPOLL_CTL_MOD, fd, wanted);
      }
    }
    std::erase_if(open_, [](const auto& entry) { return entry.second.endpoint->is_over(); });
  }

  UniqueFd epoll_;
  Manner manner_;
  Now now_;
  bool busy_ = false;
  std::unordered_map<int, Open> open_;
};

UniqueFd make_socket(int family, bool mptcp) {
  return UniqueFd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                           mptcp ? IPPROTO_MPTCP : IPPROTO_TCP));
}

UniqueFd listen_on(std::uint16_t port, bool mptcp) {
  UniqueFd fd = make_socket(AF_INET6, mptcp);
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in6 address{.sin6_family = AF_INET6,
                             .sin6_port = htons(port),
                             .sin6_flowinfo = 0,
                             .sin6_addr = in6addr_any,
                             .sin6_scope_id = 0};
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(fd.get(), kBacklog) != 0) {
    fail("listen on " + std::to_string(port));
  }
  return fd;
}

int run_server(std::uint64_t seed, Manner manner, const std::vector<std::string>& ports) {
  std::mt19937_64 random(seed);
  Loop loop(manner);
  std::unordered_map<int, std::uint16_t> port_of;
  std::vector<UniqueFd> listeners;
  for (const std::string& text : ports) {
    const auto port = static_cast<std::uint16_t>(std::atoi(text.c_str()));
    listeners.push_back(listen_on(port, manner.habit == Habit::kMptcp));
    port_of[listeners.back().get()] = port;
    loop.add_listener(listeners.back().get());
  }
  say({{"what", "ready"}});
  for (;;) {
    for (const int listener : loop.turn()) {
      UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd.valid()) {
        loop.add(std::move(fd), std::nullopt, random(), port_of.at(listener));
      }
    }
  }
}

Hello draw_hello(std::mt19937_64& random) {
  constexpr std::array kKinds{Kind::kPing,   Kind::kPing,   Kind::kPing,      Kind::kPing,
                              Kind::kStream, Kind::kStream, Kind::kStream,    Kind::kAbort,
                              Kind::kAbort,  Kind::kRude,   Kind::kHalfClose, Kind::kHalfClose,
                              Kind::kShort,  Kind::kShort,  Kind::kShort,     Kind::kShort};
  Hello hello;
  hello.kind = kKinds[random() % kKinds.size()];
  hello.ender = random() % 2 == 0 ? kClient : kServer;
  hello.id = random();
  for (auto& duration : hello.duration_ms) {
    // Long enough to be adopted, and some that are not.
    duration = static_cast<std::uint32_t>(100 + random() % (random() % 4 == 0 ? 1000 : 12'000));
  }
  return hello;
}

class Client {
 public:
  Client(std::uint64_t seed, Manner manner, std::size_t count, std::vector<Address> targets)
      : loop_(manner),
        manner_(manner),
        random_(seed),
        count_(count),
        targets_(std::move(targets)) {}

  int run() {
    bool hurried = false;
    while (stop_asked == 0 || loop_.size() > 0) {
      if (stop_asked != 0 && !std::exchange(hurried, true)) {
        loop_.hurry();
      }
      if (stop_asked == 0 && loop_.size() < count_ && loop_.now().ms >= next_ms_) {
        open_one();
      }
      (void)loop_.turn();
    }
    return 0;
  }

 private:
  // One after the other, so that each has its share.
  void open_one() {
    const Address& target = targets_[next_target_++ % targets_.size()];
    next_ms_ = loop_.now().ms + static_cast<std::int64_t>(random_() % 30);
    const Hello hello = draw_hello(random_);
    UniqueFd fd =
        make_socket(target.storage.ss_family, manner_.habit == Habit::kMptcp && random_() % 2 == 0);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&target.storage), target.size) != 0 &&
        errno != EINPROGRESS) {
      // As SO_ERROR would tell it later.
      say({{"what", "end"},
           {"id", hello.id},
           {"kind", kKindNames.at(static_cast<std::size_t>(hello.kind))},
           {"side", "client"},
           {"port", target.port},
           {"begin", loop_.now().ms},
           {"now", monotonic_ms()},
           {"connecting", true},
           {"sent", 0},
           {"received", 0},
           {"tcp_sent", 0},
           {"longest_gap", 0},
           {"error", ::strerrorname_np(errno)}});
      return;
    }
    loop_.add(std::move(fd), hello, random_(), target.port);
  }

  Loop loop_;
  Manner manner_;
  std::mt19937_64 random_;
  std::size_t count_;
  std::vector<Address> targets_;
  std::size_t next_target_ = 0;
  std::int64_t next_ms_ = 0;
};

Manner parse_manner(const std::string& habit, const std::string& late_ms) {
  const auto* const name = std::find(kHabitNames.begin(), kHabitNames.end(), habit);
  if (name == kHabitNames.end()) {
    fail("no habit: " + habit);
  }
  return {.habit = static_cast<Habit>(name - kHabitNames.begin()),
          .from_ms = monotonic_ms() + std::atoll(late_ms.c_str())};
}

int run(const std::vector<std::string>& words) {
  if (words.size() < 5) {
    std::fprintf(stderr, "usage: st_soak_peer server|client HABIT LATE_MS SEED ...\n");
    return 2;
  }
  const Manner manner = parse_manner(words[1], words[2]);
  const std::uint64_t seed = std::strtoull(words[3].c_str(), nullptr, 10);
  if (words[0] == "server") {
    return run_server(seed, manner, {words.begin() + 4, words.end()});
  }
  std::signal(SIGTERM, [](int) { stop_asked = 1; });
  std::vector<Address> targets;
  std::transform(words.begin() + 5, words.end(), std::back_inserter(targets), parse);
  return Client(seed, manner, std::strtoull(words[4].c_str(), nullptr, 10), std::move(targets))
      .run();
}

}  // namespace
}  // namespace sidetrack::soak

int main(int argc, char** argv) {
  return sidetrack::soak::run({argv + 1, argv + argc});
}
