// SPDX-License-Identifier: Apache-2.0
// Forwarder: the connections of one worker, from the accepted socket to the last byte: picks and
// reaches an upstream, tries another endpoint if one does not answer, relays, ends. Driven by the
// worker's epoll loop; one thread.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include <boost/intrusive/list.hpp>

#include "engine/connection.h"
#include "engine/counters.h"
#include "engine/links.h"
#include "engine/netns_seat.h"
#include "engine/pod.h"
#include "engine/relay.h"
#include "engine/routes.h"
#include "engine/upstream.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engine {

// A pod as one worker sees it.
struct WorkerPod {
  std::shared_ptr<Netns> netns;
  std::shared_ptr<const Pod> pod;  // null once its listeners are closed
  boost::intrusive::list<Connection> connections;
};

class Forwarder {
 public:
  // All references must outlive it. `epoll` gets the sockets of connections, with the connection's
  // address as event data; bit 0 of it is the side.
  Forwarder(int epoll, const Routes& routes, Counters& counters, NetnsSeat& seat, Links& links,
            std::size_t buffer_bytes);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  // Takes over an accepted socket. `v4`: its family.
  void start(UniqueFd client, WorkerPod& pod, const SocketAddress& destination, bool v4);
  void on_event(Connection& connection, SideIndex side, std::uint32_t events);
  // Resets every connection of the pod.
  void cut(WorkerPod& pod);

  // The rest of a turn, after its events: what did not get its full share, timers, and freeing what
  // was closed.
  void finish_turn(std::int64_t now_ns);
  // How long the next epoll_wait may sleep at most, in ms.
  [[nodiscard]] int wait_ms(std::int64_t now_ns, int longest_ms) const;
  void set_now(std::int64_t now_ns) { now_ns_ = now_ns; }

 private:
  enum class Ending : std::uint8_t { kQuiet, kReset };
  struct Turn {
    Connection* connection;
    SideIndex from;
  };
  struct Resetting {
    Connection* connection;
    std::int64_t deadline_ns;
  };

  void try_upstream(Connection& connection);
  [[nodiscard]] bool open_next(Connection& connection);
  void upstream_failed(Connection& connection, int error_number);
  void give_up(Connection& connection, int error_number);
  void drop_upstream(Connection& connection);
  void stop_timer(Connection& connection);
  void on_connect_event(Connection& connection, std::uint32_t events);
  void reached(Connection& connection);
  void connected(Connection& connection);
  [[nodiscard]] bool found_broken(Connection& connection, SideIndex side, std::uint32_t events);
  void pump(Connection& connection, SideIndex from);
  void age(Connection& connection, std::uint64_t moved);
  void finish_broken(Connection& connection, Step step);
  void close(Connection& connection, Ending ending);
  [[nodiscard]] bool watch(Connection& connection, SideIndex side) const;
  void run_ready();
  void run_timers();
  void run_resetting();
  void reclaim();
  [[nodiscard]] Opened open_in(Netns& netns, const SocketAddress& target);
  [[nodiscard]] std::uint32_t random();

  int epoll_;
  const Routes& routes_;
  Counters& counters_;
  NetnsSeat& seat_;
  Links& links_;
  Relay relay_;
  std::int64_t now_ns_ = 0;
  std::uint32_t random_;
  std::vector<Turn> ready_;
  std::vector<Turn> running_;
  std::list<Connection*>
      timers_;  // one timeout for all: the order of starting is the order of ending
  std::vector<Resetting> resetting_;
  std::vector<Connection*> closed_;
};

}  // namespace sidetrack::engine
