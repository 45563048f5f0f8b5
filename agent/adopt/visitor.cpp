// SPDX-License-Identifier: Apache-2.0
#include "agent/adopt/visitor.h"

#include <sched.h>
#include <spdlog/spdlog.h>

#include <map>
#include <thread>
#include <utility>

#include "agent/pods/netns.h"

namespace sidetrack::adopt {

namespace {

struct Stop {
  UniqueFd netns;  // not valid: the own one
  std::vector<std::size_t> requests;
};

}  // namespace

Visitor::Visitor(dataplane::Adopter adopter, std::uint64_t node, PathOf path_of)
    : adopter_(adopter), node_(node), path_of_(std::move(path_of)) {}

std::vector<st_fast_reason> Visitor::run(const std::vector<st_adopt_request>& requests) {
  std::vector<st_fast_reason> answers(requests.size(), ST_FAST_GONE);
  std::map<std::uint64_t, Stop> stops;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    stops[requests[i].self.netns_cookie].requests.push_back(i);
  }
  std::vector<Stop> own;
  std::vector<Stop> others;
  for (auto& [cookie, stop] : stops) {
    if (cookie == node_) {
      own.push_back(std::move(stop));
    } else if (const auto path = path_of_(cookie)) {
      if (auto netns = pods::open_netns(*path)) {
        stop.netns = std::move(*netns);
        others.push_back(std::move(stop));
      }
    }
  }
  const auto serve = [&](const Stop& stop) {
    for (const std::size_t i : stop.requests) {
      const auto answer = adopter_.run(requests[i]);
      if (!answer) {
        spdlog::error("component=adopt event=run_failed detail=\"{}\"", answer.error().message);
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

}  // namespace sidetrack::adopt
