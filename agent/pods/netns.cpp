// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/netns.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "agent/pods/source.h"

namespace sidetrack::pods {

namespace {

constexpr int kLoopback = 1;  // the index of lo in every namespace, whatever it is called

Result<bool> is_loopback_up() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return errno_error("socket", errno);
  }
  ifreq request{};
  request.ifr_ifindex = kLoopback;
  if (ioctl(socket.get(), SIOCGIFNAME, &request) != 0 ||
      ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
    return errno_error("read the flags of lo", errno);
  }
  return (request.ifr_flags & IFF_UP) != 0;
}

// The kernel fills one read and has nothing for a second: what fills it all may be cut.
std::string read_reserved_ports() {
  const UniqueFd file(open("/proc/sys/net/ipv4/ip_local_reserved_ports", O_RDONLY | O_CLOEXEC));
  std::string list(1024, '\0');
  for (;;) {
    const ssize_t size = pread(file.get(), list.data(), list.size(), 0);
    if (size <= 0) {
      return {};
    }
    if (static_cast<std::size_t>(size) < list.size()) {
      list.resize(static_cast<std::size_t>(size) - 1);  // without the newline
      return list;
    }
    list.resize(2 * list.size());
  }
}

// What is not told is no reason to leave the pod out: its object has addresses, too.
void read_addresses(const NetnsFacts* known, NetnsFacts& facts) {
  facts.sources = default_sources();
  if (known != nullptr && known->sources == facts.sources) {
    facts.addresses = known->addresses;
  } else if (auto addresses = list_own_addresses()) {
    facts.addresses = std::move(*addresses);
    std::erase_if(facts.addresses, is_link_local);
  }
}

// The sysctl files follow the namespace of the thread that opens them.
Result<NetnsFacts> inspect_here(const CookieReader& read_cookie, const NetnsFacts* known) {
  NetnsFacts facts;
  auto cookie = read_cookie();
  ST_TRY(cookie);
  facts.cookie = *cookie;
  std::ifstream("/proc/sys/net/ipv4/ip_local_port_range") >> facts.port_low >> facts.port_high;
  if (facts.port_low == 0 || facts.port_high < facts.port_low) {
    return make_error(ErrorCode::kIo, "read net.ipv4.ip_local_port_range: not a range of ports");
  }
  facts.reserved_ports = read_reserved_ports();
  int reuse = 2;
  std::ifstream("/proc/sys/net/ipv4/tcp_tw_reuse") >> reuse;
  facts.reuses_time_wait = reuse != 0;
  auto loopback_up = is_loopback_up();
  ST_TRY(loopback_up);
  facts.loopback_up = *loopback_up;
  read_addresses(known, facts);
  return facts;
}

}  // namespace

Result<UniqueFd> open_netns(const std::string& path) {
  // Objects name the path, and to open a FIFO waits, a device does something. O_PATH does neither.
  const UniqueFd place(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!place.valid()) {
    return errno_error("netns " + path, errno);
  }
  struct statfs filesystem {};
  if (fstatfs(place.get(), &filesystem) != 0 || filesystem.f_type != NSFS_MAGIC) {
    return make_error(ErrorCode::kInvalid,
                      "netns " + path + ": not a network namespace (nothing is mounted there)");
  }
  const std::string same = "/proc/self/fd/" + std::to_string(place.get());
  UniqueFd fd(open(same.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return errno_error("netns " + path, errno);
  }
  if (ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return make_error(ErrorCode::kInvalid,
                      "netns " + path + ": a namespace of another kind, not of networks");
  }
  return fd;
}

Result<NetnsFacts> inspect_netns(const std::string& path, const CookieReader& read_cookie,
                                 const NetnsFacts* known) {
  auto fd = open_netns(path);
  ST_TRY(fd);
  Result<NetnsFacts> facts = make_error(ErrorCode::kInternal, "not read");
  std::thread visitor([&] {
    if (setns(fd->get(), CLONE_NEWNET) != 0) {
      facts = errno_error("enter netns " + path, errno);
      return;
    }
    facts = inspect_here(read_cookie, known);
    if (!facts) {
      facts = facts.error().within("netns " + path);
    }
  });
  visitor.join();
  return facts;
}

Result<NewNetns> make_netns(const CookieReader& read_cookie) {
  Result<NewNetns> made = make_error(ErrorCode::kInternal, "not made");
  std::thread maker([&] {
    if (unshare(CLONE_NEWNET) != 0) {
      made = errno_error("make a network namespace", errno);
      return;
    }
    auto fd = open_netns("/proc/thread-self/ns/net");
    const auto cookie = read_cookie();
    if (fd && cookie) {
      made = NewNetns{.fd = std::move(*fd), .cookie = *cookie};
    } else {
      made = fd ? cookie.error() : fd.error();
    }
  });
  maker.join();
  return made;
}

Result<NetnsFacts> inspect_own_netns(const CookieReader& read_cookie, const NetnsFacts* known) {
  return inspect_here(read_cookie, known);
}

}  // namespace sidetrack::pods
