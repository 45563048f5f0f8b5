// SPDX-License-Identifier: Apache-2.0
// One relayed connection: a socket to the client, one to the upstream, and what is needed to move
// bytes between them. Small on purpose: an idle connection holds no buffer. Owned by one worker; no
// other thread touches it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>

#include <boost/intrusive/list_hook.hpp>

#include "engine/address.h"
#include "engine/links.h"
#include "engine/routes.h"

namespace sidetrack::engine {

struct WorkerPod;

enum SideIndex : std::uint8_t { kClient = 0, kServer = 1 };

[[nodiscard]] constexpr SideIndex other(SideIndex side) {
  return side == kClient ? kServer : kClient;
}

// Bytes that one socket did not take yet.
struct Pending {
  std::unique_ptr<char[]> bytes;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;

  [[nodiscard]] bool empty() const { return begin == end; }
};

struct Side {
  int fd = -1;
  bool read_to_end = false;  // something out of the ordinary happened: a short read does not mean
                             // that it was drained
  bool eof = false;          // its FIN was read
  bool fin_sent = false;     // our FIN was sent to it
  bool queued = false;       // it waits for its turn in the worker's queue
  Pending pending;           // to be written to it
};

struct Connection;

// What is only needed until the upstream is reached.
struct Attempt {
  SocketAddress destination;     // what the client asked for
  std::shared_ptr<Route> route;  // null: straight to `destination`
  Tried tried;
  std::int64_t deadline_ns = 0;            // 0 = the kernel's own
  std::list<Connection*>::iterator timer;  // valid if there is a deadline
};

// In units of one pump or 8 KiB: a connection that does less is too short to be worth a link.
inline constexpr std::uint8_t kYoung = 8;

struct Connection
    : boost::intrusive::list_base_hook<boost::intrusive::link_mode<boost::intrusive::normal_link>> {
  Side side[2];
  WorkerPod* pod = nullptr;
  std::unique_ptr<Attempt> attempt;  // null once the upstream is reached
  std::shared_ptr<Endpoint>
      endpoint;  // null for connections that go straight to the original destination
  std::uint64_t forwarded[2] = {0, 0};  // bytes that came from each side and that send() took
  std::unique_ptr<LiveLink> link;       // null: it has none
  std::uint8_t until_link = kYoung;     // what it has yet to do before it asks for one
  bool client_v4 = true;
  bool broken =
      false;  // one side was reset: what it still gives is passed on, then the other one is reset
  SideIndex broken_side = kClient;  // with `attempt`: whom the last Step::kBroken was about
  bool closed = false;              // its sockets are closed; freed at the end of the turn
  bool resetting =
      false;  // broken, and in the worker's list of those that still have something to deliver
};

}  // namespace sidetrack::engine
