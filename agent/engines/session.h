// SPDX-License-Identifier: Apache-2.0
// One engine's connection: its socket, what it was sent, what is due. Brings the engine in step
// with the desired state at the pace at which it reads. Mutators only note what is due and are safe
// to call from anywhere on the loop's thread; sending and the calls to the host happen from the
// loop. One thread (the io_context's).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/engines/engine_server.h"
#include "agent/engines/pod_ledger.h"
#include "agent/sys/unix_server.h"
#include "sidetrack/wire/engine.h"
#include "sidetrack/wire/framing.h"

namespace sidetrack::engines {

struct Desired {
  std::map<std::uint64_t, PodSpec> pods;
  policy::Routes routes;
};

class Session;

// The server, as a session sees it. `on_*` must not run the agent's callbacks at once.
class SessionHost {
 public:
  struct Admission {
    SessionId id = 0;
    Welcome welcome;
  };
  SessionHost() = default;
  SessionHost(const SessionHost&) = delete;
  SessionHost& operator=(const SessionHost&) = delete;
  virtual ~SessionHost() = default;
  [[nodiscard]] virtual const Desired& desired() const = 0;
  [[nodiscard]] virtual const Timings& timings() const = 0;
  [[nodiscard]] virtual Result<Admission> admit(std::int64_t pid, const std::string& build) = 0;
  [[nodiscard]] virtual Result<UniqueFd> open_netns(std::uint64_t netns_cookie) = 0;
  virtual void on_listening(SessionId session, std::uint64_t netns_cookie) = 0;
  virtual void on_failed(SessionId session, std::uint64_t netns_cookie,
                         const std::string& reason) = 0;
  virtual void on_draining(SessionId session) = 0;
  virtual void on_link(SessionId session, const Link& link) = 0;
  virtual void on_ended(Session& session, const std::string& reason) = 0;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(boost::asio::io_context& context, UniqueFd socket, sys::PeerCredentials peer,
          SessionHost& host);

  void start();
  // Ends without a word to the host, which may be gone afterwards.
  void abandon();

  [[nodiscard]] bool registered() const { return stage_ == Stage::kRegistered; }
  [[nodiscard]] bool was_registered() const { return info_.id != 0; }
  [[nodiscard]] const SessionInfo& info() const { return info_; }
  [[nodiscard]] const PodListeners* listeners(std::uint64_t netns_cookie) const {
    return pods_.listeners(netns_cookie);
  }

  void upsert_pod(std::uint64_t netns_cookie);
  void remove_pod(std::uint64_t netns_cookie, bool cut);
  void reopen_pod(std::uint64_t netns_cookie);
  void touch_routes(const std::set<std::string>& keys);

 private:
  enum class Stage : std::uint8_t { kNew, kRegistered, kRefused, kEnded };

  void wait_readable();
  void on_readable();
  void wait_writable();
  void flush();
  void end(const std::string& reason);
  void close();
  void send(const wire::EngineMessage& message, std::vector<UniqueFd> fds = {});
  void refuse(const std::string& reason);

  void handle(wire::Frame& frame);
  void handle_message(const wire::Hello& hello);
  void handle_message(const wire::Listening& listening);
  void handle_message(const wire::Failed& failed);
  void handle_message(const wire::Draining& draining);
  void handle_message(const wire::Stats& stats);
  void handle_message(const wire::Link& link);
  void send_welcome(const Welcome& welcome);
  void begin_snapshot();

  void schedule_pump();
  void pump();
  void send_route(const std::string& key);
  void send_pod(std::uint64_t netns_cookie);
  void fail_pod(std::uint64_t netns_cookie, const std::string& reason);

  void arm_timer();
  void on_timer();

  boost::asio::posix::stream_descriptor socket_;
  boost::asio::steady_timer timer_;
  sys::PeerCredentials peer_;
  SessionHost* host_;
  Stage stage_ = Stage::kNew;
  SessionInfo info_;
  std::string refusal_;
  bool has_slots_ = false;  // it was sent st_slots
  wire::FrameReader reader_;
  wire::FrameWriter writer_;
  PodLedger pods_;
  policy::Routes sent_routes_;
  std::set<std::string> due_routes_;
  bool snapshot_open_ = false;
  bool pump_posted_ = false;
  bool waits_writable_ = false;
  PodLedger::Clock::time_point hello_until_;
  std::optional<PodLedger::Clock::time_point> stalled_at_;
};

}  // namespace sidetrack::engines
