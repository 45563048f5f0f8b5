// SPDX-License-Identifier: Apache-2.0
#include "agent/engines/session.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>
#include <variant>

#include <boost/asio/post.hpp>

#include "agent/engines/messages.h"

namespace sidetrack::engines {
namespace {

using Clock = PodLedger::Clock;
using boost::system::error_code;

}  // namespace

Session::Session(boost::asio::io_context& context, UniqueFd socket, sys::PeerCredentials peer,
                 SessionHost& host)
    : socket_(context, socket.release()),
      timer_(context),
      peer_(peer),
      host_(&host),
      pods_(host.timings()) {}

void Session::start() {
  hello_until_ = Clock::now() + host_->timings().hello;
  arm_timer();
  wait_readable();
}

void Session::close() {
  stage_ = Stage::kEnded;
  error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
  reader_ = {};
  writer_ = wire::FrameWriter();
}

void Session::abandon() {
  host_ = nullptr;
  close();
}

// The host forgets the session later, from the loop: it may be going through its sessions now.
void Session::end(const std::string& reason) {
  if (stage_ == Stage::kEnded) {
    return;
  }
  close();
  boost::asio::post(socket_.get_executor(), [self = shared_from_this(), reason] {
    if (self->host_ != nullptr) {
      self->host_->on_ended(*self, reason);
    }
  });
}

void Session::wait_readable() {
  socket_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                     [self = shared_from_this()](const error_code& error) {
                       if (!error && self->stage_ != Stage::kEnded) {
                         self->on_readable();
                       }
                     });
}

void Session::on_readable() {
  auto received = reader_.read(socket_.native_handle());
  if (!received) {
    end(received.error().message);
    return;
  }
  for (wire::Frame& frame : received->frames) {
    handle(frame);
    if (stage_ == Stage::kEnded) {
      return;
    }
  }
  if (received->closed) {
    end("closed by the engine");
    return;
  }
  wait_readable();
}

void Session::wait_writable() {
  if (waits_writable_) {
    return;
  }
  waits_writable_ = true;
  socket_.async_wait(boost::asio::posix::descriptor_base::wait_write,
                     [self = shared_from_this()](const error_code& error) {
                       self->waits_writable_ = false;
                       if (!error && self->stage_ != Stage::kEnded) {
                         self->pump();
                       }
                     });
}

void Session::flush() {
  const std::size_t before = writer_.queued_bytes();
  if (const auto flushed = writer_.flush(socket_.native_handle()); !flushed) {
    end(flushed.error().message);
    return;
  }
  if (writer_.empty()) {
    stalled_at_.reset();
    if (stage_ == Stage::kRefused) {
      end(refusal_);
    }
    return;
  }
  if (!stalled_at_ || writer_.queued_bytes() < before) {
    stalled_at_ = Clock::now() + host_->timings().stalled;
  }
  wait_writable();
}

void Session::send(const wire::EngineMessage& message, std::vector<UniqueFd> fds) {
  auto body = wire::encode(message);
  const auto pushed =
      body ? writer_.push(std::move(*body), std::move(fds)) : Result<void>(body.error());
  if (!pushed) {
    end(pushed.error().message);
  }
}

void Session::refuse(const std::string& reason) {
  refusal_ = "refused: " + reason;
  send(wire::Refused{.reason = reason});
  stage_ = Stage::kRefused;
  schedule_pump();
}

void Session::handle(wire::Frame& frame) {
  if (stage_ == Stage::kRefused) {
    return;
  }
  const auto message = wire::decode(frame.body);
  if (!message) {
    if (message.error().code != ErrorCode::kUnsupported) {
      end(message.error().message);
    }
    return;
  }
  const bool hello = std::holds_alternative<wire::Hello>(*message);
  if (hello != (stage_ == Stage::kNew) || frame.fds.size() != wire::descriptors_of(*message)) {
    end("unexpected " + std::string(wire::kind_of(*message)));
    return;
  }
  std::visit(
      [this](const auto& m) {
        if constexpr (requires { handle_message(m); }) {
          handle_message(m);
        } else {
          end("a message that only the agent sends");
        }
      },
      *message);
}

void Session::handle_message(const wire::Hello& hello) {
  if (hello.version != wire::kEngineProtocolVersion) {
    refuse("engine " + hello.build + " speaks protocol version " + std::to_string(hello.version) +
           ", this agent speaks version " + std::to_string(wire::kEngineProtocolVersion));
    return;
  }
  // The pid that the kernel knows; 0 when the engine lives in a pid namespace that is not below
  // ours.
  info_.pid = peer_.pid != 0 ? peer_.pid : hello.pid;
  info_.version = hello.build;
  const auto admission = host_->admit(info_.pid, hello.build);
  if (stage_ == Stage::kEnded) {
    return;  // the callback stopped the server
  }
  if (!admission) {
    refuse(admission.error().message);
    return;
  }
  info_.id = admission->id;
  info_.slot = admission->welcome.slot;
  send_welcome(admission->welcome);
  if (stage_ == Stage::kNew) {
    stage_ = Stage::kRegistered;
    begin_snapshot();
  }
}

// An engine whose process we cannot see gets no slots: its cell may go to another one while its
// sockets live, and both would then write into the same slots.
void Session::send_welcome(const Welcome& welcome) {
  const auto copy_of = [](int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); };
  const bool with_slots = welcome.slots_fd >= 0 && peer_.pid != 0;
  UniqueFd engines = copy_of(welcome.engines_fd);
  UniqueFd slots = with_slots ? copy_of(welcome.slots_fd) : UniqueFd();
  if (!engines.valid() || (with_slots && !slots.valid())) {
    refuse(errno_error("st_engines", errno).message);
    return;
  }
  send(welcome_message(welcome), single(std::move(engines)));
  if (with_slots) {
    send(wire::Slots{}, single(std::move(slots)));
    has_slots_ = true;
  }
}

void Session::handle_message(const wire::Listening& listening) {
  if (pods_.answered(listening.netns_cookie, listening.request_id, listeners_of(listening))) {
    host_->on_listening(info_.id, listening.netns_cookie);
  }
  schedule_pump();
}

void Session::handle_message(const wire::Failed& failed) {
  if (pods_.refused(failed.netns_cookie, failed.request_id, Clock::now())) {
    host_->on_failed(info_.id, failed.netns_cookie, failed.reason);
  }
  schedule_pump();
}

void Session::handle_message(const wire::Draining& /*draining*/) {
  if (!info_.draining) {
    info_.draining = true;
    pods_.stop_asking();
    host_->on_draining(info_.id);
  }
}

void Session::handle_message(const wire::Stats& stats) {
  info_.connections = stats.connections;
}

void Session::handle_message(const wire::Link& link) {
  if (!has_slots_ || link.index / ST_LINKS_PER_ENGINE != info_.slot) {
    end("link " + std::to_string(link.index) + " is not one of this engine's");
    return;
  }
  host_->on_link(info_.id, Link{.client_cookie = link.client_cookie,
                                .server_cookie = link.server_cookie,
                                .index = link.index});
}

void Session::arm_timer() {
  std::optional<Clock::time_point> next = pods_.next_expiry();
  const auto consider = [&next](Clock::time_point when) {
    next = next ? std::min(*next, when) : when;
  };
  if (stage_ == Stage::kNew) {
    consider(hello_until_);
  }
  if (stalled_at_) {
    consider(*stalled_at_);
  }
  timer_.cancel();
  if (!next) {
    return;
  }
  timer_.expires_at(*next);
  timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error && self->stage_ != Stage::kEnded) {
      self->on_timer();
    }
  });
}

void Session::on_timer() {
  const auto now = Clock::now();
  if (stage_ == Stage::kNew && now >= hello_until_) {
    end("no hello in time");
    return;
  }
  if (stalled_at_ && now >= *stalled_at_) {
    end("the engine reads too slowly");
    return;
  }
  for (const std::uint64_t cookie : pods_.expire(now)) {
    host_->on_failed(info_.id, cookie, "the engine did not answer in time");
  }
  pump();
}

}  // namespace sidetrack::engines
