// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/netns.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <thread>

#include "agent/dataplane/netns_cookies.h"
#include "sidetrack/cgroup/process_cgroup.h"
#include "tests/lab/cgroup.h"
#include "tests/lab/process.h"
#include "tests/lab/temp_dir.h"

namespace sidetrack::lab {
namespace {

Result<void> bring_loopback_up() {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", sizeof(request.ifr_name) - 1);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (!socket.valid() || ::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) {
    return errno_error("bring lo up", errno);
  }
  return {};
}

Result<void> sysctl_here(std::string_view key, std::string_view value) {
  return write_existing(fmt::format("/proc/sys/net/{}", key), value);
}

Result<void> make_namespace(const std::string& path) {
  if (::unshare(CLONE_NEWNET) != 0) {
    return errno_error("unshare network namespace", errno);
  }
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444));
  if (!file.valid()) {
    return errno_error("create " + path, errno);
  }
  if (::mount("/proc/thread-self/ns/net", path.c_str(), "none", MS_BIND, nullptr) != 0) {
    return errno_error("bind mount " + path, errno);
  }
  ST_TRY(bring_loopback_up());
  for (const char* key :
       {"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6", "ipv6/conf/lo/disable_ipv6",
        "ipv6/conf/all/accept_dad", "ipv6/conf/default/accept_dad", "ipv4/conf/all/rp_filter",
        "ipv4/conf/default/rp_filter"}) {
    ST_TRY(sysctl_here(key, "0"));
  }
  return {};
}

}  // namespace

Result<void> run_in_netns(int netns_fd, const std::function<Result<void>()>& body) {
  Result<void> result;
  std::thread([&] {
    if (::setns(netns_fd, CLONE_NEWNET) != 0) {
      result = errno_error("enter network namespace", errno);
      return;
    }
    result = body();
  }).join();
  return result;
}

Netns::Mount::~Mount() {
  if (!name.empty()) {
    const std::string path = "/run/netns/" + name;
    ::umount2(path.c_str(), MNT_DETACH);
    ::unlink(path.c_str());
  }
}

Result<Netns> Netns::create(std::string_view name) {
  ::mkdir("/run/netns", 0755);  // existing is fine; anything else shows at the next step
  Mount mount(unique_name(name));
  const std::string path = "/run/netns/" + mount.name;
  Result<void> made;
  std::thread([&] { made = make_namespace(path); }).join();
  if (!made) {
    return made.error().within("netns " + mount.name);
  }
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) {
    return errno_error("open " + path, errno);
  }
  return Netns(std::move(mount), std::move(fd));
}

Netns::~Netns() = default;

Result<std::uint64_t> Netns::cookie() const {
  return call([]() -> Result<std::uint64_t> {
    static std::mutex one_at_a_time;
    const std::lock_guard lock(one_at_a_time);
    auto root = cgroup::find_hierarchy();
    ST_TRY(root);
    static dataplane::NetnsCookies cookies(*root);
    return cookies.here();
  });
}

Result<void> Netns::write_sysctl(std::string_view key, std::string_view value) const {
  return run([&] { return sysctl_here(key, value); });
}

Result<void> Netns::set_rps(std::string_view device, std::string_view cpus) const {
  return run([&]() -> Result<void> {
    // A view of sysfs of the thread's own, which ends with it.
    if (::unshare(CLONE_NEWNS) != 0 ||
        ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("sysfs", "/sys", "sysfs", 0, nullptr) != 0) {
      return errno_error("mount sysfs", errno);
    }
    return write_existing(fmt::format("/sys/class/net/{}/queues/rx-0/rps_cpus", device), cpus);
  });
}

Result<void> Netns::ip(std::string_view commands) const {
  auto done = run_command(
      {.arguments = {"ip", "-n", name(), "-batch", "-"}, .input = std::string(commands)});
  if (!done) {
    return done.error();
  }
  if (done->exit_status != 0) {
    return make_error(ErrorCode::kInternal,
                      fmt::format("ip -n {}: {} (commands: {})", name(), done->output, commands));
  }
  return {};
}

}  // namespace sidetrack::lab
