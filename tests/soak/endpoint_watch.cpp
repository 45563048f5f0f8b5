// SPDX-License-Identifier: Apache-2.0
// When an endpoint stands still, and what it tells then and in the end.
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <nlohmann/json.hpp>

#include "tests/soak/clock.h"
#include "tests/soak/endpoint.h"

namespace sidetrack::soak {

namespace {

constexpr std::int64_t kGapWorthTelling = 180;
constexpr std::int64_t kStallMs = 1000;
constexpr std::int64_t kGiveUpMs = 15'000;

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  (void)::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
  return info;
}

bool is_mptcp(int fd) {
  int protocol = 0;
  socklen_t size = sizeof(protocol);
  return ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
         protocol == IPPROTO_MPTCP;
}

}  // namespace

std::string Endpoint::name_of_errno(int number) {
  const char* name = ::strerrorname_np(number);
  return name == nullptr ? "?" : name;
}

// What happened while it waited to be accepted happened to it, too.
std::int64_t Endpoint::established_ms(int fd, Now now) {
  return now.ms - std::int64_t{info_of(fd).tcpi_last_data_recv};
}

void Endpoint::moved(Now now) {
  longest_gap_ms_ = std::max(longest_gap_ms_, now.awake_ms - moved_awake_ms_);
  if (now.awake_ms - moved_awake_ms_ >= kGapWorthTelling) {
    nlohmann::json told = describe(now);
    told["from"] = moved_ms_;
    told["in_gap"] = std::exchange(in_gap_, {});
    tell("gap", told);
  }
  moved_ms_ = now.ms;
  moved_awake_ms_ = now.awake_ms;
  stalls_told_ = 0;
}

void Endpoint::watch(Now now) {
  const std::int64_t gap = now.awake_ms - moved_awake_ms_;
  if (gap >= kGapWorthTelling && in_gap_.empty()) {
    in_gap_ = describe(now).dump();
  }
  if (gap >= kStallMs * (stalls_told_ + 1)) {
    ++stalls_told_;
    nlohmann::json told = describe(now);
    told["from"] = moved_ms_;
    tell("stall", told);
  }
  if (gap >= kGiveUpMs) {
    end("STALLED", now);
  }
}

void Endpoint::tell(const char* what, nlohmann::json told) const {
  told["what"] = what;
  told["now"] = monotonic_ms();  // not as of this turn: kills are looked up by it
  tell_(told);
}

nlohmann::json Endpoint::describe(Now now) const {
  constexpr std::array kReaders{"level", "drain", "short_read"};
  const tcp_info info = info_of(fd_.get());
  pollfd wanted{fd_.get(), POLLIN | POLLOUT | POLLRDHUP, 0};
  (void)::poll(&wanted, 1, 0);
  // By what poll() says: a recv() would take the error that is to be told.
  const bool waits = (wanted.revents & (POLLIN | POLLRDHUP | POLLHUP | POLLERR)) == POLLIN;
  std::array<std::uint32_t, SK_MEMINFO_VARS> memory{};
  socklen_t size = sizeof(memory);
  (void)::getsockopt(fd_.get(), SOL_SOCKET, SO_MEMINFO, memory.data(), &size);
  const bool mptcp = is_mptcp(fd_.get());
  const std::size_t hello_size = side_ == kClient ? sizeof(Hello) : 0;
  // Of MPTCP this tells of one subflow, and that may be closed.
  const std::uint64_t by_tcp =
      mptcp ? sent_ + hello_size
            : info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes;
  return {{"id", hello_ ? hello_->id : 0},
          {"kind", hello_ ? kKindNames.at(static_cast<std::size_t>(hello_->kind)) : "none"},
          {"side", side_ == kClient ? "client" : "server"},
          {"begin", begin_ms_},
          {"gap", now.awake_ms - moved_awake_ms_},
          {"longest_gap", longest_gap_ms_},
          {"sent", sent_},
          {"received", received_},
          {"tcp_sent", by_tcp < hello_size ? 0 : by_tcp - hello_size},
          {"connecting", connecting_},
          {"mptcp", mptcp},
          {"reader", kReaders.at(static_cast<std::size_t>(reader_))},
          {"state", info.tcpi_state},
          {"poll", wanted.revents},
          {"unread", waits},
          {"unacked", info.tcpi_unacked},
          {"retransmits", info.tcpi_total_retrans},
          {"probes", info.tcpi_probes},
          {"send_window", info.tcpi_snd_wnd},
          {"receive_threshold", info.tcpi_rcv_ssthresh},
          {"retransmit_timeout_us", info.tcpi_rto},
          {"backoff", info.tcpi_backoff},
          {"last_sent_ms", info.tcpi_last_data_sent},
          {"last_received_ms", info.tcpi_last_data_recv},
          {"receive_memory", memory[SK_MEMINFO_RMEM_ALLOC]},
          {"receive_buffer", memory[SK_MEMINFO_RCVBUF]},
          {"fin_sent", fin_sent_},
          {"not_sent", info.tcpi_notsent_bytes}};
}

void Endpoint::end(const std::string& error, Now now) {
  nlohmann::json told = describe(now);
  told["error"] = error;
  tell("end", told);
  const bool resets = error == "STALLED" || error == "CORRUPT" ||
                      (error.empty() && hello_ && hello_->kind == Kind::kAbort);
  if (resets) {
    const linger abort{.l_onoff = 1, .l_linger = 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  }
  fd_.reset();
}

}  // namespace sidetrack::soak
