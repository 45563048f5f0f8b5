// SPDX-License-Identifier: Apache-2.0
// What applications with their own event loop on io_uring do.
#include <cerrno>
#include <vector>

#include "tests/lab/shell_sockets.h"

#ifdef ST_HAS_URING
#include <liburing.h>
#endif

namespace sidetrack::lab {

#ifdef ST_HAS_URING
int connect_by_uring(int fd, const SocketAddress& address) {
  io_uring ring{};
  if (const int failure = ::io_uring_queue_init(4, &ring, 0); failure != 0) {
    return -failure;
  }
  io_uring_sqe* const entry = ::io_uring_get_sqe(&ring);
  ::io_uring_prep_connect(entry, fd, address.get(), address.size);
  io_uring_cqe* done = nullptr;
  int result = ::io_uring_submit(&ring) == 1 ? ::io_uring_wait_cqe(&ring, &done) : -EIO;
  if (result == 0) {
    result = done->res;
    ::io_uring_cqe_seen(&ring, done);
  }
  ::io_uring_queue_exit(&ring);
  return -result;
}

int keep_uring() {
  static std::vector<io_uring> rings;  // they end with the program
  return -::io_uring_queue_init(4, &rings.emplace_back(), 0);
}
#else
int connect_by_uring(int /*fd*/, const SocketAddress& /*address*/) {
  return ENOSYS;  // built without liburing-dev
}

int keep_uring() {
  return ENOSYS;
}
#endif

}  // namespace sidetrack::lab
