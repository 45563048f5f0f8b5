// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/endpoint.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace sidetrack::soak {

namespace {

constexpr int kTurns = 16;
constexpr std::uint64_t kSends = 2;  // on average, until a pause
constexpr std::uint64_t kSendPauseMs = 8;
constexpr std::uint64_t kGreedySends = 64;  // more than a window
constexpr std::uint64_t kGreedyPauseMs = 100;

}  // namespace

Endpoint::Endpoint(UniqueFd fd, std::optional<Hello> hello, std::uint64_t style, Manner manner,
                   Now now, Tell tell)
    : fd_(std::move(fd)),
      side_(hello ? kClient : kServer),
      tell_(std::move(tell)),
      random_(style),
      manner_(manner),
      connecting_(hello.has_value()),
      begin_ms_(hello ? now.ms : established_ms(fd_.get(), now)),
      moved_ms_(now.ms),
      moved_awake_ms_(now.awake_ms) {
  choose_style(random_());
  if (hello) {
    const auto* raw = reinterpret_cast<const char*>(&*hello);
    out_.assign(raw, raw + sizeof(Hello));
    start(*hello);
  }
}

void Endpoint::choose_style(std::uint64_t style) {
  constexpr std::array kReaders{Reader::kLevel, Reader::kDrain, Reader::kShortRead};
  reader_ = kReaders[style % kReaders.size()];
  constexpr std::array<std::size_t, 4> kSizes{1500, 16384, 65536, kMostBytes};
  read_size_ = kSizes[(style >> 8U) % kSizes.size()];
  peeks_ = (style >> 16U) % 8 == 0;
  greedy_ = (style >> 20U) % 4 == 0;
  if (manner_.habit == Habit::kAsks || manner_.habit == Habit::kSplices) {
    // What these take at once says nothing of whether more waits.
    reader_ = Reader::kLevel;
    peeks_ = manner_.habit == Habit::kAsks;
  }
  const int on = 1;
  if ((style >> 24U) % 4 != 0) {
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  if ((style >> 32U) % 8 == 0) {
    const int bytes = 65536;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  }
}

void Endpoint::start(const Hello& hello) {
  hello_ = hello;
  sends_ = lab::Pattern(pattern_seed(hello, side_));
  expects_ = lab::Pattern(pattern_seed(hello, side_ == kClient ? kServer : kClient));
  rounds_ = Rounds(hello.id);
  if (!has_rounds(hello.kind)) {
    goal_ = ~std::uint64_t{0};
    return;
  }
  const auto lengths = rounds_.next();
  awaits_ = side_ == kClient ? lengths.response : lengths.request;
  goal_ = side_ == kClient ? lengths.request : 0;
  request_ = lengths.request;
  response_ = lengths.response;
}

std::uint32_t Endpoint::interest(Now now) const {
  constexpr std::uint32_t kEdges = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  if (reader_ != Reader::kLevel) {
    return kEdges;
  }
  const bool wants_to_send = connecting_ || (now.ms >= send_after_ms_ && sent_ < goal_);
  return (!eof_ && now.ms >= read_after_ms_ ? std::uint32_t{EPOLLIN} : 0U) |
         (wants_to_send && !fin_sent_ ? std::uint32_t{EPOLLOUT} : 0U);
}

void Endpoint::on_events(std::uint32_t events) {
  constexpr std::uint32_t kEnds = EPOLLERR | EPOLLHUP;
  hang_up_ = hang_up_ || (events & (EPOLLRDHUP | kEnds)) != 0;
  readable_ = readable_ || (events & (EPOLLIN | EPOLLRDHUP | kEnds)) != 0;
  writable_ = writable_ || (events & (EPOLLOUT | kEnds)) != 0;
}

bool Endpoint::work(Now now) {
  bool goes_on = true;
  for (int turn = 0; turn < kTurns && goes_on && !is_over(); ++turn) {
    if (connecting_ && !finish_connect(now)) {
      break;
    }
    goes_on = may_read(now) && read_some(now);
    if (!is_over()) {
      advance(now);
    }
    if (!is_over() && may_send(now)) {
      goes_on = send_some(now) || goes_on;
    }
    if (!is_over()) {
      finish_sending(now);
    }
  }
  if (!is_over()) {
    watch(now);
  }
  return goes_on && !is_over();
}

bool Endpoint::finish_connect(Now now) {
  if (!writable_) {
    return false;
  }
  int error = 0;
  socklen_t size = sizeof(error);
  (void)::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    end(name_of_errno(error), now);
    return false;
  }
  connecting_ = false;
  moved(now);
  return true;
}

bool Endpoint::may_read(Now now) const {
  return readable_ && !eof_ && now.ms >= read_after_ms_;
}

bool Endpoint::may_send(Now now) const {
  return writable_ && !fin_sent_ && now.ms >= send_after_ms_ &&
         (out_begin_ < out_.size() || made_ < goal_);
}

void Endpoint::make_bytes() {
  constexpr std::array<std::size_t, 4> kSizes{200, 1400, 32768, kMostBytes};
  const std::size_t most = 1 + random_() % kSizes[random_() % kSizes.size()];
  out_.resize(static_cast<std::size_t>(std::min<std::uint64_t>(most, goal_ - made_)));
  sends_.fill(out_);
  made_ += out_.size();
  out_begin_ = 0;
}

bool Endpoint::send_some(Now now) {
  if (out_begin_ == out_.size()) {
    make_bytes();
  }
  const ssize_t count =
      ::send(fd_.get(), out_.data() + out_begin_, out_.size() - out_begin_, MSG_NOSIGNAL);
  if (count < 0) {
    writable_ = false;
    if (errno != EAGAIN) {
      end(name_of_errno(errno), now);
    }
    return false;
  }
  out_begin_ += static_cast<std::size_t>(count);
  sent_ = made_ - (out_.size() - out_begin_);
  moved(now);
  const std::uint64_t pause = greedy_ ? kGreedyPauseMs : kSendPauseMs;
  if (random_() % (greedy_ ? kGreedySends : kSends) == 0) {
    send_after_ms_ = now.ms + static_cast<std::int64_t>(random_() % pause);
  }
  return out_begin_ == out_.size();
}

bool Endpoint::time_is_up(Now now) const {
  return hurried_ || now.ms >= begin_ms_ + hello_->duration_ms[side_];
}

void Endpoint::advance(Now now) {
  if (!hello_) {
    return;
  }
  if (has_rounds(hello_->kind)) {
    advance_rounds(now);
    return;
  }
  if (!time_is_up(now)) {
    return;
  }
  if (is_endless(hello_->kind)) {
    if (hello_->ender == side_) {
      end("", now);
    }
    return;
  }
  finish_ = true;
  goal_ = made_;
}

void Endpoint::advance_rounds(Now now) {
  if (last_round_ || received_ < awaits_ || made_ < goal_ || out_begin_ < out_.size()) {
    return;
  }
  if (side_ == kServer) {
    goal_ += response_;
    const auto lengths = rounds_.next();
    awaits_ += lengths.request;
    request_ = lengths.request;
    response_ = lengths.response;
    return;
  }
  if (hello_->kind == Kind::kShort || time_is_up(now)) {
    last_round_ = true;
    if (hello_->kind != Kind::kHalfClose) {
      end("", now);
      return;
    }
    goal_ += draw_length(random_);
    finish_ = true;
    return;
  }
  const auto lengths = rounds_.next();
  goal_ += lengths.request;
  awaits_ += lengths.response;
  if (random_() % 4 == 0) {
    send_after_ms_ = now.ms + static_cast<std::int64_t>(random_() % 3);
  }
}

void Endpoint::on_eof(Now now) {
  if (!hello_ || is_endless(hello_->kind)) {
    // A rude peer's close may look like an end.
    const bool is_rude = hello_ && hello_->kind == Kind::kRude;
    end(is_rude ? "RUDE_EOF" : "EOF", now);
    return;
  }
  if (hello_->kind == Kind::kPing || hello_->kind == Kind::kShort) {
    // A client closes between rounds: nothing of the next request has come.
    const bool between = side_ == kServer && received_ > 0 && received_ == awaits_ - request_ &&
                         made_ == goal_ && out_begin_ == out_.size();
    end(between ? "" : "EOF", now);
  } else if (hello_->kind == Kind::kHalfClose && side_ == kServer) {
    last_round_ = true;
    goal_ += draw_length(random_);
    finish_ = true;
  } else if (hello_->kind == Kind::kHalfClose && !fin_sent_) {
    end("EOF", now);
  }
}

void Endpoint::finish_sending(Now now) {
  if (finish_ && !fin_sent_ && made_ >= goal_ && out_begin_ == out_.size()) {
    if (::shutdown(fd_.get(), SHUT_WR) != 0) {
      // ENOTCONN: it was reset, which recv() tells.
      readable_ = true;
      read_after_ms_ = 0;
      if (errno != ENOTCONN || eof_) {
        end(name_of_errno(errno), now);
      }
      return;
    }
    fin_sent_ = true;
    moved(now);
  }
  if (fin_sent_ && eof_) {
    end("", now);
  }
}

}  // namespace sidetrack::soak
