// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/vfs.h>

#include <cerrno>
#include <fstream>
#include <thread>

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71  // include/uapi/asm-generic/socket.h; glibc 2.36 has no name for it
#endif

namespace sidetrack::pods {

namespace {

// The sysctl files follow the namespace of the thread that opens them.
Result<NetnsFacts> inspect_here() {
  NetnsFacts facts;
  const UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return errno_error("make a socket", errno);
  }
  socklen_t size = sizeof(facts.cookie);
  if (getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &facts.cookie, &size) != 0) {
    const int saved = errno;
    Error error = errno_error("read the netns cookie (SO_NETNS_COOKIE)", saved);
    if (saved == ENOPROTOOPT) {
      error.code = ErrorCode::kUnsupported;
      error.message += "; the kernel has it since 5.14, and pods cannot be told apart without";
    }
    return error;
  }
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> facts.port_low >> facts.port_high;
  if (facts.port_low == 0 || facts.port_high < facts.port_low) {
    return make_error(ErrorCode::kIo, "read net.ipv4.ip_local_port_range: not a range of ports");
  }
  int reuse = 2;
  std::ifstream("/proc/sys/net/ipv4/tcp_tw_reuse") >> reuse;
  facts.reuses_time_wait = reuse != 0;
  return facts;
}

}  // namespace

Result<UniqueFd> open_netns(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return errno_error("netns " + path, errno);
  }
  struct statfs filesystem {};
  if (fstatfs(fd.get(), &filesystem) != 0 || filesystem.f_type != NSFS_MAGIC) {
    return make_error(ErrorCode::kInvalid,
                      "netns " + path + ": not a network namespace (nothing is mounted there)");
  }
  return fd;
}

Result<NetnsFacts> inspect_netns(const std::string& path) {
  auto fd = open_netns(path);
  ST_TRY(fd);
  Result<NetnsFacts> facts = make_error(ErrorCode::kInternal, "not read");
  std::thread visitor([&facts, &fd, &path] {
    if (setns(fd->get(), CLONE_NEWNET) != 0) {
      facts = errno_error("enter netns " + path, errno);
      return;
    }
    facts = inspect_here();
    if (!facts) {
      facts = facts.error().within("netns " + path);
    }
  });
  visitor.join();
  return facts;
}

Result<NetnsFacts> inspect_own_netns() {
  return inspect_here();
}

}  // namespace sidetrack::pods
