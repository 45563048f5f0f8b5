// SPDX-License-Identifier: Apache-2.0
#include "tests/soak/endpoint.h"

#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/soak/clock.h"

namespace sidetrack::soak {

namespace {

constexpr int kTurns = 16;
constexpr std::size_t kMostBytes = 131072;
constexpr std::int64_t kGapWorthTelling = 180;
constexpr std::int64_t kStallMs = 1000;
constexpr std::int64_t kGiveUpMs = 15'000;
constexpr std::uint64_t kReadPauseMs = 25;
constexpr std::uint64_t kSends = 2;  // on average, until a pause
constexpr std::uint64_t kSendPauseMs = 8;
constexpr std::uint64_t kGreedySends = 64;  // more than a window
constexpr std::uint64_t kGreedyPauseMs = 100;

std::string name_of_errno(int number) {
  const char* name = ::strerrorname_np(number);
  return name == nullptr ? "?" : name;
}

std::string hex_of(std::span<const char> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes.first(std::min<std::size_t>(bytes.size(), 16))) {
    text += kDigits[(static_cast<unsigned char>(byte) >> 4U) & 15U];
    text += kDigits[static_cast<unsigned char>(byte) & 15U];
  }
  return text;
}

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  (void)::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
  return info;
}

// One thread per process: where received and expected bytes are compared.
std::vector<char>& scratch(std::size_t which) {
  static std::array<std::vector<char>, 2> buffers{std::vector<char>(kMostBytes),
                                                  std::vector<char>(kMostBytes)};
  return buffers[which];
}

}  // namespace

Endpoint::Endpoint(UniqueFd fd, std::optional<Hello> hello, std::uint64_t style, Now now, Tell tell)
    : fd_(std::move(fd)),
      side_(hello ? kClient : kServer),
      tell_(std::move(tell)),
      random_(style),
      connecting_(hello.has_value()),
      begin_ms_(now.ms),
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

bool Endpoint::read_some(Now now) {
  std::vector<char>& buffer = scratch(0);
  // Never more than the hello before it is known where the stream begins.
  const std::size_t asked = hello_ ? read_size_ : sizeof(Hello) - hello_bytes_.size();
  ssize_t count = 0;
  std::size_t size = asked;
  if (peeks_) {
    count = ::recv(fd_.get(), buffer.data(), asked, MSG_PEEK);
    size = count > 0 ? static_cast<std::size_t>(count) : asked;
  }
  if (count >= 0) {
    count = ::recv(fd_.get(), buffer.data(), size, 0);
  }
  if (count > 0) {
    check(std::span(buffer.data(), static_cast<std::size_t>(count)), now);
    after_read(static_cast<std::size_t>(count), asked, now);
    return true;
  }
  if (count == 0) {
    eof_ = true;
    moved(now);
    on_eof(now);
    return false;
  }
  readable_ = false;
  if (errno != EAGAIN) {
    end(name_of_errno(errno), now);
  }
  return false;
}

// Also decides when epoll is asked again: see Reader.
void Endpoint::after_read(std::size_t got, std::size_t asked, Now now) {
  moved(now);
  if (reader_ == Reader::kLevel || (reader_ == Reader::kShortRead && got < asked && !hang_up_)) {
    readable_ = false;
  }
  if (random_() % 32 == 0) {
    read_after_ms_ = now.ms + static_cast<std::int64_t>(random_() % kReadPauseMs);
  }
}

bool Endpoint::take_hello(std::span<const char> bytes) {
  hello_bytes_.insert(hello_bytes_.end(), bytes.begin(), bytes.end());
  if (hello_bytes_.size() < sizeof(Hello)) {
    return true;
  }
  Hello hello;
  std::memcpy(&hello, hello_bytes_.data(), sizeof(hello));
  if (hello.magic != kMagic || hello.kind > Kind::kRude || hello.ender > kServer) {
    return false;
  }
  start(hello);
  return true;
}

void Endpoint::check(std::span<const char> bytes, Now now) {
  if (!hello_) {
    if (!take_hello(bytes)) {
      nlohmann::json told = describe(now);
      told["what"] = "corrupt";
      told["got"] = hex_of(hello_bytes_);
      tell_(told);
      end("CORRUPT", now);
    }
    return;
  }
  const std::span<char> wanted(scratch(1).data(), bytes.size());
  expects_.fill(wanted);
  const auto differs = std::mismatch(bytes.begin(), bytes.end(), wanted.begin()).first;
  if (differs != bytes.end()) {
    const auto offset = static_cast<std::size_t>(differs - bytes.begin());
    nlohmann::json told = describe(now);
    told["what"] = "corrupt";
    told["at"] = received_ + offset;
    told["got"] = hex_of(bytes.subspan(offset));
    told["wanted"] = hex_of(wanted.subspan(offset));
    tell_(told);
    end("CORRUPT", now);
    return;
  }
  received_ += bytes.size();
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

void Endpoint::moved(Now now) {
  longest_gap_ms_ = std::max(longest_gap_ms_, now.awake_ms - moved_awake_ms_);
  if (now.awake_ms - moved_awake_ms_ >= kGapWorthTelling) {
    nlohmann::json told = describe(now);
    told["what"] = "gap";
    told["from"] = moved_ms_;
    tell_(told);
  }
  moved_ms_ = now.ms;
  moved_awake_ms_ = now.awake_ms;
  told_stall_ = false;
}

void Endpoint::watch(Now now) {
  const std::int64_t gap = now.awake_ms - moved_awake_ms_;
  if (gap >= kStallMs && !told_stall_) {
    told_stall_ = true;
    nlohmann::json told = describe(now);
    told["what"] = "stall";
    told["from"] = moved_ms_;
    tell_(told);
  }
  if (gap >= kGiveUpMs) {
    end("STALLED", now);
  }
}

nlohmann::json Endpoint::describe(Now now) const {
  constexpr std::array kReaders{"level", "drain", "short_read"};
  const tcp_info info = info_of(fd_.get());
  pollfd wanted{fd_.get(), POLLIN | POLLOUT, 0};
  (void)::poll(&wanted, 1, 0);
  char next = 0;
  const ssize_t waits = ::recv(fd_.get(), &next, 1, MSG_PEEK | MSG_DONTWAIT);
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t size = sizeof(memory);
  (void)::getsockopt(fd_.get(), SOL_SOCKET, SO_MEMINFO, memory.data(), &size);
  const std::size_t hello_size = side_ == kClient ? sizeof(Hello) : 0;
  const std::uint64_t by_tcp =
      info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes;
  return {{"id", hello_ ? hello_->id : 0},
          {"kind", hello_ ? kKindNames.at(static_cast<std::size_t>(hello_->kind)) : "none"},
          {"side", side_ == kClient ? "client" : "server"},
          {"begin", begin_ms_},
          {"now", monotonic_ms()},  // not as of this turn: kills are looked up by it
          {"gap", now.awake_ms - moved_awake_ms_},
          {"longest_gap", longest_gap_ms_},
          {"sent", sent_},
          {"received", received_},
          {"tcp_sent", by_tcp < hello_size ? 0 : by_tcp - hello_size},
          {"connecting", connecting_},
          {"reader", kReaders.at(static_cast<std::size_t>(reader_))},
          {"state", info.tcpi_state},
          {"poll", wanted.revents},
          {"unread", waits > 0},
          {"unacked", info.tcpi_unacked},
          {"retransmits", info.tcpi_total_retrans},
          {"probes", info.tcpi_probes},
          {"receive_memory", memory[SK_MEMINFO_RMEM_ALLOC]},
          {"receive_buffer", memory[SK_MEMINFO_RCVBUF]},
          {"fin_sent", fin_sent_},
          {"not_sent", info.tcpi_notsent_bytes}};
}

void Endpoint::end(const std::string& error, Now now) {
  nlohmann::json told = describe(now);
  told["what"] = "end";
  told["error"] = error;
  tell_(told);
  const bool resets = error == "STALLED" || error == "CORRUPT" ||
                      (error.empty() && hello_ && hello_->kind == Kind::kAbort);
  if (resets) {
    const linger abort{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  }
  fd_.reset();
}

}  // namespace sidetrack::soak
