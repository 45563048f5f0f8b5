// SPDX-License-Identifier: Apache-2.0
// The socket calls around a connection: starting an upstream connect, telling the kernel how it
// ended, closing with RST. No state; any thread.
#pragma once

#include <cstdint>

#include "engine/address.h"

namespace sidetrack::engine {

struct Opened {
  int fd = -1;
  int error_number = 0;  // if fd is -1
};

// A non-blocking socket with the options of every upstream connection, or -1 with errno.
[[nodiscard]] int make_upstream_socket(int family);

// Starts a connect to `destination` in the netns that the calling thread is in. The socket is
// non-blocking.
[[nodiscard]] Opened open_upstream(const SocketAddress& destination);

// The error that waits on a socket; reading takes it away.
[[nodiscard]] int socket_error(int fd);

// Bytes that the peer has not acknowledged.
[[nodiscard]] std::uint32_t unacknowledged(int fd);

// Tells our BPF program where an accepted connection went and, if `error_number` is set, that it
// could not be reached.
void report(int accepted, bool accepted_v4, const SocketAddress& endpoint, int error_number);

// From here on the peer gets RST when the socket is closed, also if that is because this process
// was killed: its peer must not take that for the end of a stream. What is still to be sent is
// dropped.
void reset_on_close(int fd);

// Undoes it: the stream to the peer is complete, and ends with FIN once all of it has arrived.
void finish_on_close(int fd);

// Closes so that the peer gets RST, now.
void close_with_reset(int fd);

}  // namespace sidetrack::engine
