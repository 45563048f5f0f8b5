// SPDX-License-Identifier: Apache-2.0
// One invocation of the plugin: its socket, its one request, the answer. Ends by itself when the
// answer is gone, the plugin is, or time is up. One thread (the io_context's).
#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "agent/cni/cni_server.h"
#include "sidetrack/wire/cni.h"
#include "sidetrack/wire/framing.h"

namespace sidetrack::cni {

class Session;

// The server, as a session sees it.
class SessionHost {
 public:
  SessionHost() = default;
  SessionHost(const SessionHost&) = delete;
  SessionHost& operator=(const SessionHost&) = delete;
  virtual ~SessionHost() = default;
  [[nodiscard]] virtual Handler& handler() = 0;
  [[nodiscard]] virtual const Timings& timings() const = 0;
  virtual void on_answered(const Served& served) = 0;
  virtual void on_ended(const Session& session) = 0;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(boost::asio::io_context& context, UniqueFd socket, SessionHost& host);

  void start();
  // Ends without a word to the host, which may be gone afterwards.
  void abandon();

 private:
  using Clock = std::chrono::steady_clock;

  void wait_readable();
  void on_readable();
  void wait_writable();
  void flush();
  void arm(std::chrono::milliseconds within);
  void end();
  void close();

  void handle(wire::Frame& frame);
  void serve(wire::cni::Add& request, UniqueFd netns);
  void serve(const wire::cni::Del& request);
  void serve(const wire::cni::Check& request);
  void serve(const wire::cni::Gc& request);
  void serve(const wire::cni::Status& request);
  // `failure_code`: the CNI code of an error that says nothing better.
  void answer(const Result<void>& outcome, std::uint32_t failure_code);
  void refuse(std::string message, std::string details);
  void send(const wire::cni::Message& message, std::uint32_t code);

  boost::asio::posix::stream_descriptor socket_;
  boost::asio::steady_timer timer_;
  SessionHost* host_;  // null: abandoned
  wire::FrameReader reader_;
  wire::FrameWriter writer_;
  std::string_view command_ = "invalid";
  bool asked_ = false;     // the request is here
  bool answered_ = false;  // the answer is queued
  bool ended_ = false;
  Clock::time_point started_ = Clock::now();
};

}  // namespace sidetrack::cni
