// SPDX-License-Identifier: Apache-2.0
// For tests of links: memory in place of the map st_slots, and what the kernel says of the engine's
// sockets.
#pragma once

#include <dirent.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>

#include "sidetrack/abi/fast.h"
#include "tests/unit/engine_lab.h"

namespace sidetrack::engine {

// A map st_slots without a kernel.
class FakeSlots {
 public:
  FakeSlots() : fd(::memfd_create("st_slots", MFD_CLOEXEC)) {
    const std::size_t bytes = std::size_t{ST_MAX_SLOTS} * sizeof(std::uint64_t);
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
    memory_ = static_cast<std::uint64_t*>(
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
  }
  [[nodiscard]] std::uint64_t get(std::uint32_t index, SideIndex from) const {
    return std::atomic_ref(memory_[std::size_t{2} * index + from]).load();
  }
  UniqueFd fd;

 private:
  std::uint64_t* memory_;
};

inline std::uint16_t port_of(int fd, bool peer) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  auto* const out = reinterpret_cast<sockaddr*>(&address);
  const int failed = peer ? ::getpeername(fd, out, &size) : ::getsockname(fd, out, &size);
  return failed == 0 && address.sin_family == AF_INET ? ntohs(address.sin_port) : 0;
}

// The engine lives in this process: the other end of a socket is one of our descriptors.
inline int other_end_of(int fd) {
  DIR* const folder = ::opendir("/proc/self/fd");
  int found = -1;
  while (const dirent* entry = ::readdir(folder)) {
    const int other = std::atoi(entry->d_name);
    if (other != fd && port_of(fd, false) != 0 && port_of(other, true) == port_of(fd, false) &&
        port_of(other, false) == port_of(fd, true)) {
      found = other;
    }
  }
  ::closedir(folder);
  return found;
}

inline std::uint64_t cookie_of(int fd) {
  std::uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  EXPECT_EQ(::getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size), 0);
  return cookie;
}

// What a socket's send() has taken, as its kernel counts: sent or queued.
inline std::uint64_t taken_by(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  EXPECT_EQ(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  // One look: what is acknowledged and what is queued, asked for one after the other, may be of two
  // moments and too few.
  return info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes;
}

}  // namespace sidetrack::engine
