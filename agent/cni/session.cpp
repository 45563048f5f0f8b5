// SPDX-License-Identifier: Apache-2.0
#include "agent/cni/session.h"

#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <set>
#include <string>
#include <utility>
#include <variant>

#include <boost/asio/post.hpp>

#include "sidetrack/log/log.h"

namespace sidetrack::cni {
namespace {

using boost::system::error_code;

constexpr const char* kRestart =
    "restart the agent of this node: it installs the plugin of its build";
constexpr const char* kAskDoctor = "run `sidetrackctl doctor` on this node";

}  // namespace

Session::Session(boost::asio::io_context& context, UniqueFd socket, SessionHost& host)
    : socket_(context, socket.release()), timer_(context), host_(&host) {}

void Session::start() {
  arm(host_->timings().request);
  wait_readable();
}

void Session::close() {
  ended_ = true;
  error_code ignored;
  socket_.close(ignored);
  timer_.cancel();
}

void Session::abandon() {
  host_ = nullptr;
  close();
}

// The host forgets the session later, from the loop: it may be going through its sessions now.
void Session::end() {
  if (ended_) {
    return;
  }
  close();
  boost::asio::post(socket_.get_executor(), [self = shared_from_this()] {
    if (self->host_ != nullptr) {
      self->host_->on_ended(*self);
    }
  });
}

void Session::arm(std::chrono::milliseconds within) {
  timer_.expires_after(within);
  timer_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error && !self->ended_) {
      log_event(LogLevel::kWarn, "cni", "timeout",
                {{"command", self->command_}, {"answered", self->answered_}});
      self->end();
    }
  });
}

// Also while an answer is due: a plugin that gave up is noticed.
void Session::wait_readable() {
  socket_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                     [self = shared_from_this()](const error_code& error) {
                       if (!error && !self->ended_) {
                         self->on_readable();
                       }
                     });
}

void Session::on_readable() {
  auto received = reader_.read(socket_.native_handle());
  if (!received) {
    log_event(LogLevel::kWarn, "cni", "bad_request", {{"error", received.error().message}});
    end();
    return;
  }
  for (wire::Frame& frame : received->frames) {
    if (std::exchange(asked_, true)) {
      log_event(LogLevel::kWarn, "cni", "bad_request", {{"error", "more than one request"}});
      end();
      return;
    }
    arm(host_->timings().answer);
    handle(frame);
    if (ended_ || host_ == nullptr) {
      return;
    }
  }
  if (received->closed) {
    end();
    return;
  }
  wait_readable();
}

void Session::handle(wire::Frame& frame) {
  auto message = wire::cni::decode(frame.body);
  if (!message) {
    refuse(message.error().message, kRestart);
    return;
  }
  command_ = wire::cni::kind_of(*message);
  if (wire::cni::version_of(*message) != wire::cni::kProtocolVersion) {
    refuse("the plugin speaks protocol version " + std::to_string(wire::cni::version_of(*message)) +
               ", this agent speaks version " + std::to_string(wire::cni::kProtocolVersion),
           kRestart);
    return;
  }
  if (frame.fds.size() != wire::cni::descriptors_of(*message)) {
    refuse(std::string(command_) + " with " + std::to_string(frame.fds.size()) + " descriptors",
           kAskDoctor);
    return;
  }
  std::visit(
      [this, &frame](auto& m) {
        if constexpr (requires { serve(m, UniqueFd()); }) {
          serve(m, std::move(frame.fds.front()));
        } else if constexpr (requires { serve(m); }) {
          serve(m);
        } else {
          refuse("a message that only the agent sends", kAskDoctor);
        }
      },
      *message);
}

void Session::serve(wire::cni::Add& request, UniqueFd netns) {
  if (::ioctl(netns.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    refuse("the descriptor of " + request.pod_namespace + "/" + request.pod_name +
               " is not a network namespace",
           kAskDoctor);
    return;
  }
  Attachment attachment{.container_id = std::move(request.attachment.container_id),
                        .ifname = std::move(request.attachment.ifname),
                        .pod_namespace = std::move(request.pod_namespace),
                        .pod_name = std::move(request.pod_name),
                        .pod_uid = std::move(request.pod_uid),
                        .addresses = std::move(request.addresses),
                        .netns = std::move(netns)};
  host_->handler().add(std::move(attachment),
                       [weak = weak_from_this()](const Result<void>& outcome) {
                         if (const auto self = weak.lock(); self && !self->ended_) {
                           self->answer(outcome, wire::cni::kNotEnrolled);
                         }
                       });
}

void Session::serve(const wire::cni::Del& request) {
  host_->handler().remove(request.attachment);
  answer({}, wire::cni::kNotEnrolled);
}

void Session::serve(const wire::cni::Check& request) {
  answer(host_->handler().check({.attachment = request.attachment,
                                 .pod_namespace = request.pod_namespace,
                                 .pod_name = request.pod_name,
                                 .pod_uid = request.pod_uid}),
         wire::cni::kNotEnrolled);
}

void Session::serve(const wire::cni::Gc& request) {
  host_->handler().keep_only({request.valid.begin(), request.valid.end()});
  answer({}, wire::cni::kNotEnrolled);
}

void Session::serve(const wire::cni::Status& /*request*/) {
  answer(host_->handler().status(), wire::cni::kNotAvailable);
}

void Session::answer(const Result<void>& outcome, std::uint32_t failure_code) {
  if (outcome) {
    send(wire::cni::Ok{}, 0);
    return;
  }
  const bool later = outcome.error().code == ErrorCode::kBusy;
  const std::uint32_t code =
      later && failure_code == wire::cni::kNotEnrolled ? wire::cni::kTryAgainLater : failure_code;
  send(wire::cni::Failed{.code = code, .message = outcome.error().message, .details = kAskDoctor},
       code);
}

void Session::refuse(std::string message, std::string details) {
  log_event(LogLevel::kWarn, "cni", "refused", {{"command", command_}, {"reason", message}});
  send(wire::cni::Failed{.code = wire::cni::kProtocolError,
                         .message = std::move(message),
                         .details = std::move(details)},
       wire::cni::kProtocolError);
}

void Session::send(const wire::cni::Message& message, std::uint32_t code) {
  if (host_ == nullptr || std::exchange(answered_, true)) {
    return;
  }
  auto body = wire::cni::encode(message);
  const auto pushed = body ? writer_.push(std::move(*body)) : Result<void>(body.error());
  if (!pushed) {
    log_event(LogLevel::kError, "cni", "answer_lost", {{"error", pushed.error().message}});
    end();
    return;
  }
  const std::chrono::duration<double> took = Clock::now() - started_;
  host_->on_answered({.command = command_, .code = code, .seconds = took.count()});
  flush();
}

// The plugin closes when it has read the answer; until then, or its time is up, this lives.
void Session::flush() {
  if (ended_) {
    return;
  }
  if (const auto flushed = writer_.flush(socket_.native_handle()); !flushed) {
    end();
    return;
  }
  if (!writer_.empty()) {
    wait_writable();
  }
}

void Session::wait_writable() {
  socket_.async_wait(boost::asio::posix::descriptor_base::wait_write,
                     [self = shared_from_this()](const error_code& error) {
                       if (!error && !self->ended_) {
                         self->flush();
                       }
                     });
}

}  // namespace sidetrack::cni
