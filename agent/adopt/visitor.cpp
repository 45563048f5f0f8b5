// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/visitor.h"

#include <netinet/tcp.h>
#include <sched.h>

#include <map>
#include <thread>
#include <utility>

#include "agent/pods/netns.h"
#include "agent/sys/sock_diag.h"
#include "sidetrack/log/log.h"

namespace sidetrack::adopt {

namespace {

// In the calling thread's namespace.
Result<bool> destroy_here(std::uint64_t cookie) {
  const auto sockets = sys::list_tcp_sockets(1U << TCP_ESTABLISHED | 1U << TCP_CLOSE_WAIT |
                                             1U << TCP_FIN_WAIT1 | 1U << TCP_FIN_WAIT2);
  ST_TRY(sockets);
  for (const sys::TcpSocket& socket : *sockets) {
    if (socket.cookie == cookie) {
      return sys::destroy_tcp_socket(socket);
    }
  }
  return false;
}

struct Stop {
  UniqueFd netns;  // not valid: the own one
  std::vector<std::size_t> requests;
};

}  // namespace

Visitor::Visitor(dataplane::Adopter adopter, std::uint64_t node, PathOf path_of)
    : adopter_(adopter),
      node_(node),
      path_of_(std::move(path_of)),
      walks_([adopter](std::uint64_t socket_cookie) { return adopter.nudge(socket_cookie); }) {}

std::vector<st_fast_reason> Visitor::run(const std::vector<st_adopt_request>& requests) {
  std::vector<st_fast_reason> answers(requests.size(), ST_FAST_GONE);
  std::map<std::uint64_t, Stop> stops;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const bool anywhere = requests[i].op == ST_ADOPT_NOTE;  // of a row, not of a socket
    stops[anywhere ? node_ : requests[i].self.netns_cookie].requests.push_back(i);
  }
  std::vector<Stop> own;
  std::vector<Stop> others;
  for (auto& [cookie, stop] : stops) {
    if (auto netns = open(cookie)) {
      stop.netns = std::move(*netns);
      (stop.netns.valid() ? others : own).push_back(std::move(stop));
    }
  }
  const auto serve = [&](const Stop& stop) {
    for (const std::size_t i : stop.requests) {
      const auto answer = adopter_.run(requests[i]);
      if (!answer) {
        log_event(LogLevel::kError, "adopt", "run_failed", {{"detail", answer.error().message}});
      }
      answers[i] = answer ? *answer : ST_FAST_INTERNAL;
    }
  };
  for (const Stop& stop : own) {
    serve(stop);
  }
  if (others.empty()) {
    return answers;
  }
  // A thread of its own: it ends in another namespace than it began.
  std::thread traveller([&] {
    for (const Stop& stop : others) {
      if (setns(stop.netns.get(), CLONE_NEWNET) == 0) {
        serve(stop);
      }
    }
  });
  traveller.join();
  return answers;
}

Result<UniqueFd> Visitor::open(std::uint64_t netns_cookie) const {
  if (netns_cookie == node_) {
    return UniqueFd();
  }
  const auto path = path_of_(netns_cookie);
  if (!path) {
    return make_error(ErrorCode::kNotFound, "no pod has this netns any more");
  }
  return pods::open_netns(*path);
}

Result<void> Visitor::visit(std::uint64_t netns_cookie,
                            const std::function<Result<void>()>& work) const {
  const auto netns = open(netns_cookie);
  ST_TRY(netns);
  if (!netns->valid()) {
    return work();
  }
  Result<void> result;
  std::thread traveller([&] {
    result =
        setns(netns->get(), CLONE_NEWNET) == 0 ? work() : errno_error("enter the namespace", errno);
  });
  traveller.join();
  return result;
}

void Visitor::nudge(std::uint64_t netns_cookie, std::uint64_t socket_cookie) {
  auto netns = open(netns_cookie);
  if (netns) {
    walks_.start(std::move(*netns), socket_cookie);
  } else if (netns.error().code != ErrorCode::kNotFound) {  // else its pod is gone: let_fins_go()
    log_event(LogLevel::kError, "adopt", "nudge_failed",
              {{"socket_cookie", socket_cookie}, {"detail", netns.error().message}});
  }
}

void Visitor::widen(std::uint64_t netns_cookie) {
  nudge(netns_cookie, 0);
}

bool Visitor::destroy(std::uint64_t netns_cookie, std::uint64_t socket_cookie) {
  bool destroyed = false;
  const auto done = visit(netns_cookie, [&]() -> Result<void> {
    auto answer = destroy_here(socket_cookie);
    ST_TRY(answer);
    destroyed = *answer;
    return {};
  });
  if (!done) {
    log_event(LogLevel::kError, "adopt", "destroy_failed",
              {{"socket_cookie", socket_cookie}, {"detail", done.error().message}});
  }
  return destroyed;
}

}  // namespace sidetrack::adopt
