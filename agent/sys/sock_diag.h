// SPDX-License-Identifier: Apache-2.0
// TCP sockets of the calling thread's network namespace, by sock_diag (linux/inet_diag.h).
#pragma once

#include <linux/inet_diag.h>

#include <cstdint>
#include <span>
#include <vector>

#include "sidetrack/result.h"

namespace sidetrack::sys {

struct TcpSocket {
  inet_diag_sockid id{};  // addresses and ports in network byte order
  std::uint8_t family = 0;
  std::uint64_t cookie = 0;
  bool v6_only = false;
  std::uint32_t receive_queue = 0;  // of a listener: connections that wait for accept()
  std::uint32_t send_queue = 0;     // of a listener: the most that may wait
  std::uint64_t cgroup_id = 0;      // 0 = the kernel does not say
};

// `states`: bits 1 << TCP_ESTABLISHED and so on (netinet/tcp.h).
[[nodiscard]] Result<std::vector<TcpSocket>> list_tcp_sockets(std::uint32_t states);

// One message of the kernel's answer. Whether it was the last; an error that it tells of is one.
[[nodiscard]] Result<bool> read_answer(std::span<const char> answer,
                                       std::vector<TcpSocket>& sockets);

// Ends the connection as an RST would: both applications see an error. False: it is gone already.
// kUnsupported: the kernel has no CONFIG_INET_DIAG_DESTROY.
[[nodiscard]] Result<bool> destroy_tcp_socket(const TcpSocket& socket);

}  // namespace sidetrack::sys
