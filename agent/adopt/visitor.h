// SPDX-License-Identifier: Apache-2.0
// Runs adoption requests in the network namespaces of their sockets.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "agent/adopt/ports.h"
#include "agent/adopt/walks.h"
#include "agent/dataplane/dataplane.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::adopt {

class Visitor : public Sockets {
 public:
  // The path of a pod's namespace; nothing = none is known. `node`: the cookie of the namespace
  // that this process is in.
  using PathOf = std::function<std::optional<std::string>(std::uint64_t netns_cookie)>;
  Visitor(dataplane::Adopter adopter, std::uint64_t node, PathOf path_of);

  std::vector<st_fast_reason> run(const std::vector<st_adopt_request>& requests) override;
  void nudge(std::uint64_t netns_cookie, std::uint64_t socket_cookie) override;
  void widen(std::uint64_t netns_cookie) override;
  // The namespace is about to go, and with it the way out of it: no FIN waits any longer.
  void let_fins_go(UniqueFd netns) { walks_.start(std::move(netns), ST_NUDGE_LET_GO); }
  bool destroy(std::uint64_t netns_cookie, std::uint64_t socket_cookie) override;

 private:
  // The namespace; not valid: the own one. kNotFound: no pod has it any more.
  [[nodiscard]] Result<UniqueFd> open(std::uint64_t netns_cookie) const;
  // Runs `work` in the namespace, on a thread of its own where that is another one.
  [[nodiscard]] Result<void> visit(std::uint64_t netns_cookie,
                                   const std::function<Result<void>()>& work) const;

  dataplane::Adopter adopter_;
  std::uint64_t node_;
  PathOf path_of_;
  Walks walks_;
};

}  // namespace sidetrack::adopt
