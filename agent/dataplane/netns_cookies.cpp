// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/netns_cookies.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "agent/dataplane/bpf_calls.h"
#include "agent/dataplane/dataplane.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "sidetrack/unique_fd.h"
#include "sidetrack_netns.skel.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71  // include/uapi/asm-generic/socket.h; glibc 2.36 has no name for it
#endif

namespace sidetrack::dataplane {

namespace {

Result<UniqueFd> make_socket() {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) {
    return errno_error("make a socket", errno);
  }
  return fd;
}

Result<std::uint64_t> option_of(int fd, int option, const char* name) {
  std::uint64_t value = 0;
  socklen_t size = sizeof(value);
  if (getsockopt(fd, SOL_SOCKET, option, &value, &size) != 0) {
    return errno_error(std::string("read ") + name, errno);
  }
  return value;
}

Error load_error(int error_number) {
  Error error = errno_error("load cgroup/sock_create", error_number);
  error.message +=
      "; before Linux 5.14, which has SO_NETNS_COOKIE, pods cannot be told apart without";
  error.code = ErrorCode::kUnsupported;
  if (error_number == EPERM) {
    error.message += " (root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, is needed)";
    error.code = ErrorCode::kPermission;
  }
  return error;
}

}  // namespace

struct NetnsCookies::Teller {
  struct Destroy {
    void operator()(sidetrack_netns* skeleton) const { sidetrack_netns::destroy(skeleton); }
  };
  std::unique_ptr<sidetrack_netns, Destroy> skeleton;
  UniqueFd link;

  static Result<std::unique_ptr<Teller>> attach(const std::string& cgroup_dir);
};

Result<std::unique_ptr<NetnsCookies::Teller>> NetnsCookies::Teller::attach(
    const std::string& cgroup_dir) {
  auto teller = std::make_unique<Teller>();
  teller->skeleton.reset(sidetrack_netns::open_and_load());
  if (!teller->skeleton) {
    return load_error(errno);
  }
  const UniqueFd cgroup(::open(cgroup_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!cgroup.valid()) {
    return errno_error("open cgroup " + cgroup_dir, errno);
  }
  const int program = bpf_program__fd(teller->skeleton->progs.st_tell_netns);
  teller->link =
      UniqueFd(bpf_link_create(program, cgroup.get(), BPF_CGROUP_INET_SOCK_CREATE, nullptr));
  if (!teller->link.valid()) {
    return errno_error("attach cgroup/sock_create to " + cgroup_dir, errno);
  }
  return teller;
}

NetnsCookies::NetnsCookies(std::string cgroup_dir) : cgroup_dir_(std::move(cgroup_dir)) {}
NetnsCookies::~NetnsCookies() = default;

Result<std::uint64_t> NetnsCookies::here() {
  auto socket = make_socket();
  ST_TRY(socket);
  auto cookie = option_of(socket->get(), SO_NETNS_COOKIE, "SO_NETNS_COOKIE");
  return cookie || cookie.error().error_number != ENOPROTOOPT ? cookie : told_here();
}

// Nothing is told before the program is there, or when this process has been moved to another
// cgroup since. A cgroup that is not what it looks like from here is found out in the same way: the
// one above sees all.
Result<std::uint64_t> NetnsCookies::told_here() {
  if (auto told = ask(); !told || *told) {
    return told ? Result<std::uint64_t>(**told) : told.error();
  }
  const std::string own = cgroup::folder_of_process(::getpid()).value_or(cgroup_dir_);
  for (const std::string& dir : {own, cgroup_dir_}) {
    auto teller = Teller::attach(dir);
    ST_TRY(teller);
    teller_ = std::move(*teller);
    if (auto told = ask(); !told || *told) {
      return told ? Result<std::uint64_t>(**told) : told.error();
    }
  }
  return make_error(ErrorCode::kUnsupported,
                    "read the netns cookie: this process is in no cgroup below " + cgroup_dir_);
}

Result<std::optional<std::uint64_t>> NetnsCookies::ask() const {
  if (!teller_) {
    return std::optional<std::uint64_t>();
  }
  auto socket = make_socket();
  ST_TRY(socket);
  auto cookie = option_of(socket->get(), SO_COOKIE, "SO_COOKIE");
  ST_TRY(cookie);
  return map_lookup<std::uint64_t>(bpf_map__fd(teller_->skeleton->maps.st_told), "st_told",
                                   *cookie);
}

}  // namespace sidetrack::dataplane
