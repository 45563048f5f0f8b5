// SPDX-License-Identifier: Apache-2.0
// The agent's end of the engine protocol (include/sidetrack/wire/engine.h): a unix socket on which
// engines register, are sent the pods and service routes, and report their listeners. Keeps every
// session in step with one desired state; no pod can block another. One thread (the io_context's);
// callbacks run on it and may call back in (not destroy the server).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <boost/asio/io_context.hpp>

#include "agent/policy/services.h"
#include "sidetrack/result.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::engines {

using SessionId = std::uint64_t;  // larger = registered later

struct Listener {
  std::uint16_t port = 0;  // host order
  std::uint64_t cookie = 0;
};
struct PodListeners {
  std::vector<Listener> v4;
  std::vector<Listener> v6;  // empty: the pod has no IPv6 loopback
};

struct PodSpec {
  std::uint64_t netns_cookie = 0;
  std::string namespace_name;
  std::string name;
  std::vector<std::uint16_t> reserved_ports;  // never to be listened on
};

struct SessionInfo {
  SessionId id = 0;
  std::int64_t pid = 0;
  std::string version;
  std::uint16_t slot = 0;         // cell of st_engines
  bool draining = false;          // said by the engine: it accepts no new pods and will go
  std::uint64_t connections = 0;  // as last reported
};

// What a new session is told.
struct Welcome {
  std::uint16_t slot = 0;
  int engines_fd = -1;          // st_engines, borrowed: passed on with SCM_RIGHTS
  int slots_fd = -1;            // st_slots, borrowed too: where the fast path is on
  std::uint64_t cgroup_id = 0;  // the engine refuses to start outside of this cgroup
  std::uint16_t listener_port_low = 0;
  std::uint16_t listener_port_high = 0;
  std::uint16_t listeners_per_pod = 0;
};

// Two sockets of the engine between which every byte is passed on unchanged. Said again after each
// registration.
struct Link {
  std::uint64_t client_cookie = 0;  // of the accepted socket
  std::uint64_t server_cookie = 0;  // of the upstream socket
  std::uint32_t index = 0;          // of st_slots, see abi/fast.h: one of the engine's own
};

struct Callbacks {
  // A process (checked by SO_PEERCRED to be root) says hello. An error is sent to it as the reason
  // of refusal.
  std::function<Result<Welcome>(SessionId, std::int64_t pid, const std::string& version)> on_hello;
  std::function<void(SessionId, std::uint64_t netns_cookie, const PodListeners&)> on_listening;
  std::function<void(SessionId, std::uint64_t netns_cookie, const std::string& reason)> on_failed;
  std::function<void(SessionId)> on_draining;
  std::function<void(SessionId, const Link&)> on_link = [](SessionId, const Link&) {};
  std::function<void(SessionId)> on_lost;  // the connection ended, however
  // A fresh descriptor of a pod's netns; the server closes it when it is sent. The agent holds none
  // itself.
  std::function<Result<UniqueFd>(std::uint64_t netns_cookie)> open_netns;
};

struct Timings {
  std::chrono::milliseconds hello{2000};       // from connect to hello
  std::chrono::milliseconds answer{5000};      // a pod that is not answered for so long has failed
  std::chrono::milliseconds retry_first{500};  // doubles with each failure of the pod
  std::chrono::milliseconds retry_last{30000};
  std::chrono::milliseconds stalled{
      10000};  // an engine that has read nothing for so long is given up
};

class EngineServer {
 public:
  EngineServer(boost::asio::io_context& context, Callbacks callbacks, const Timings& timings = {});
  ~EngineServer();
  EngineServer(const EngineServer&) = delete;
  EngineServer& operator=(const EngineServer&) = delete;
  // Errors: see sys/unix_server.h.
  [[nodiscard]] Result<void> listen(const std::string& path);
  // Ends all sessions and removes the socket file; no callback runs after it.
  void stop();

  // Desired state. Repeating an equal call costs nothing on the wire.
  void upsert_pod(const PodSpec& pod);
  // `cut`: the pod is gone, its connections are closed; else they go on.
  void remove_pod(std::uint64_t netns_cookie, bool cut);
  // Asks the sessions to open the pod's listeners again (they were lost or taken).
  void reopen_pod(std::uint64_t netns_cookie);
  // Those that are others now; nullptr: there is none any more.
  void update_routes(policy::Routes changes);

  [[nodiscard]] std::vector<SessionInfo> sessions() const;
  // What the session last said of the pod; nothing while it has not answered.
  [[nodiscard]] const PodListeners* listeners(SessionId session, std::uint64_t netns_cookie) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared: callbacks that wait in the io_context hold it weakly
};

}  // namespace sidetrack::engines
