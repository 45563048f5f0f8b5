// SPDX-License-Identifier: Apache-2.0
#include "engine/relay.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "engine/upstream.h"

namespace sidetrack::engine {
namespace {

constexpr std::size_t kScratchBytes = 64 * 1024;
// What one direction may move before the other connections get their turn.
constexpr std::size_t kShareBytes = 512 * 1024;

bool would_block(int error_number) {
  return error_number == EAGAIN || error_number == EWOULDBLOCK;
}

}  // namespace

Relay::Relay(std::size_t buffer_bytes, Counters& counters, const Links& links)
    : scratch_bytes_(std::clamp<std::size_t>(buffer_bytes / 2, 1024, kScratchBytes)),
      scratch_(new char[scratch_bytes_]),
      counters_(counters),
      links_(links) {}

Step Relay::pump(Connection& connection, SideIndex from) {
  Side& in = connection.side[from];
  Side& out = connection.side[other(from)];
  delivered_ = false;
  for (std::size_t moved = 0;;) {
    if (!out.pending.empty()) {
      const Sent sent = flush(connection, from);
      if (sent != Sent::kAll) {
        return sent == Sent::kBlocked ? Step::kWait : break_off(connection, other(from));
      }
    }
    if (in.eof) {
      return finish(connection, from);
    }
    if (moved >= kShareBytes) {
      return Step::kMore;
    }
    const ssize_t got = ::recv(in.fd, scratch_.get(), scratch_bytes_, 0);
    if (got == 0) {
      in.eof = true;
      continue;
    }
    if (got < 0) {
      if (errno == EINTR) {
        continue;
      }
      error_ = errno;
      return would_block(error_) ? Step::kWait : break_off(connection, from);
    }
    const auto size = static_cast<std::size_t>(got);
    moved += size;
    (from == kClient ? counters_.bytes_out : counters_.bytes_in).add(size);
    const Sent sent = send_scratch(connection, from, size);
    if (sent != Sent::kAll) {
      return sent == Sent::kBlocked ? Step::kWait : break_off(connection, other(from));
    }
    // A short read has emptied the socket: whatever comes later makes a new edge. Saves one recv
    // per message. In the fast path a socket has two queues, and one recv() reads of one only.
    if (size < scratch_bytes_ && !in.read_to_end && !links_.fast_path()) {
      return Step::kWait;
    }
  }
}

void Relay::forget(const Connection& connection) {
  for (const Side& side : connection.side) {
    counters_.buffered.subtract(side.pending.end - side.pending.begin);
  }
}

void Relay::took(Connection& connection, SideIndex from, ssize_t sent) {
  delivered_ = true;
  connection.forwarded[from] += static_cast<std::uint64_t>(sent);
  if (connection.link) {
    connection.link->forwarded(from, connection.forwarded[from]);
  }
}

Relay::Sent Relay::flush(Connection& connection, SideIndex from) {
  Side& to = connection.side[other(from)];
  Pending& pending = to.pending;
  while (!pending.empty()) {
    const ssize_t sent = ::send(to.fd, pending.bytes.get() + pending.begin,
                                pending.end - pending.begin, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) {
        continue;
      }
      error_ = errno;
      return would_block(error_) ? Sent::kBlocked : Sent::kFailed;
    }
    took(connection, from, sent);
    pending.begin += static_cast<std::uint32_t>(sent);
    counters_.buffered.subtract(static_cast<std::uint64_t>(sent));
  }
  pending = Pending{};
  return Sent::kAll;
}

Relay::Sent Relay::send_scratch(Connection& connection, SideIndex from, std::size_t size) {
  Side& to = connection.side[other(from)];
  for (std::size_t done = 0; done < size;) {
    const ssize_t sent = ::send(to.fd, scratch_.get() + done, size - done, MSG_NOSIGNAL);
    if (sent >= 0) {
      took(connection, from, sent);
      done += static_cast<std::size_t>(sent);
      continue;
    }
    if (errno == EINTR) {
      continue;
    }
    error_ = errno;
    // Kept even if it failed: an upstream that could not be reached may be followed by another one.
    keep(to, scratch_.get() + done, size - done);
    return would_block(error_) ? Sent::kBlocked : Sent::kFailed;
  }
  return Sent::kAll;
}

void Relay::keep(Side& to, const char* bytes, std::size_t size) {
  to.pending.bytes.reset(new char[size]);
  std::memcpy(to.pending.bytes.get(), bytes, size);
  to.pending.begin = 0;
  to.pending.end = static_cast<std::uint32_t>(size);
  counters_.buffered.add(size);
}

Step Relay::finish(Connection& connection, SideIndex from) {
  if (connection.broken) {
    return Step::kBroken;
  }
  // shutdown() would take back a connect() that is under way.
  if (connection.attempt) {
    return Step::kWait;
  }
  Side& out = connection.side[other(from)];
  if (out.eof && connection.side[from].fin_sent) {
    return Step::kDone;  // close() sends the last FIN
  }
  if (!out.fin_sent) {
    out.fin_sent = true;
    finish_on_close(out.fd);
    ::shutdown(out.fd, SHUT_WR);
  }
  return Step::kWait;
}

// `side` gives an error. What it received before may still be unread (a server that answers and
// resets): that is passed on.
Step Relay::break_off(Connection& connection, SideIndex side) {
  if (connection.broken) {
    return Step::kBroken;
  }
  connection.broken_side = side;
  if (connection.attempt) {
    return Step::kBroken;
  }
  connection.broken = true;
  connection.side[side].read_to_end = true;
  return pump(connection, side);
}

}  // namespace sidetrack::engine
