// SPDX-License-Identifier: Apache-2.0
#include "agent/pods/processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <ctime>
#include <memory>
#include <utility>

#include "agent/pods/pod_cgroup.h"
#include "sidetrack/unique_fd.h"

namespace sidetrack::pods {
namespace {

constexpr std::size_t kMostBytes = 4096;  // more than a cgroup path of any depth in use

std::string read_start(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(kMostBytes, '\0');
  std::size_t used = 0;
  while (fd.valid() && used < text.size()) {
    const ssize_t count = read(fd.get(), text.data() + used, text.size() - used);
    if (count <= 0) {
      break;
    }
    used += static_cast<std::size_t>(count);
  }
  text.resize(used);
  return text;
}

struct DirCloser {
  void operator()(DIR* dir) const { closedir(dir); }
};

std::int64_t pid_of(const char* name) {
  const std::string_view text(name);
  std::int64_t pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  return error == std::errc() && end == text.data() + text.size() ? pid : 0;
}

using Dir = std::unique_ptr<DIR, DirCloser>;

// The process has ended, or has closed it. Of one that ends meanwhile /proc says EACCES, too.
bool is_gone(const Error& error, const std::string& process) {
  return error.error_number == ENOENT || error.error_number == ESRCH ||
         access(process.c_str(), F_OK) != 0;
}

// An error: not all of its descriptors can be seen, and none of the others is one.
Result<bool> has_io_uring(const std::string& process) {
  const std::string folder = process + "/fd";
  const Dir descriptors(opendir(folder.c_str()));
  if (!descriptors) {
    return errno_error("list " + folder, errno);
  }
  Result<bool> outcome = false;
  while (const dirent* entry = readdir(descriptors.get())) {
    if (entry->d_name[0] == '.') {
      continue;
    }
    std::array<char, 32> target{};
    const ssize_t size =
        readlinkat(dirfd(descriptors.get()), entry->d_name, target.data(), target.size());
    if (size < 0) {
      if (const Error error = errno_error("read " + folder, errno); !is_gone(error, process)) {
        outcome = error;
      }
    } else if (std::string_view(target.data(), static_cast<std::size_t>(size)) ==
               "anon_inode:[io_uring]") {
      return true;
    }
  }
  return outcome;
}

Result<ino_t> netns_of(const std::string& process) {
  struct stat netns {};
  const std::string path = process + "/ns/net";
  return stat(path.c_str(), &netns) == 0 ? Result<ino_t>(netns.st_ino)
                                         : errno_error("look at " + path, errno);
}

// Adds to `holders` what this process says of the namespaces that are wanted.
void look_for_ring(const std::string& process, const RingsWanted& wanted, RingHolders& holders) {
  const auto netns = netns_of(process);
  if (!netns && is_gone(netns.error(), process)) {
    return;
  }
  if (!netns) {
    const auto place = parse_process_cgroups(read_start(process + "/cgroup"));
    for (const auto& [inode, pod_uid] : wanted) {
      if (place && place->pod_uid == pod_uid) {
        holders.unseen.try_emplace(inode, netns.error().message);
      }
    }
    return;
  }
  if (!wanted.contains(*netns) || holders.found.contains(*netns)) {
    return;
  }
  const auto has_ring = has_io_uring(process);
  if (has_ring && *has_ring) {
    holders.found.insert(*netns);
  } else if (!has_ring && !is_gone(has_ring.error(), process)) {
    holders.unseen.try_emplace(*netns, has_ring.error().message);
  }
}

std::string_view program_of(std::string_view command_line) {
  std::string_view program = command_line.substr(0, command_line.find('\0'));
  program.remove_prefix(program.rfind('/') + 1);  // npos + 1 is 0
  return program;
}

bool is_gvisor(std::string_view program) {
  return program.starts_with("runsc");
}

bool is_machine_monitor(std::string_view program) {
  constexpr std::array kMonitors{std::string_view("qemu-system-"), std::string_view("qemu-kvm"),
                                 std::string_view("cloud-hypervisor"),
                                 std::string_view("firecracker"), std::string_view("dragonball")};
  return std::any_of(kMonitors.begin(), kMonitors.end(),
                     [program](std::string_view monitor) { return program.starts_with(monitor); });
}

}  // namespace

Result<NodeProcesses> list_processes(const std::filesystem::path& proc) {
  const Dir dir(opendir(proc.c_str()));
  if (!dir) {
    return errno_error("list " + proc.string(), errno);
  }
  const ino_t own_netns = netns_of((proc / "self").string()).value_or(0);
  const long ticks = sysconf(_SC_CLK_TCK);
  const auto suspended = suspended_since_boot();
  NodeProcesses processes;
  while (const dirent* entry = readdir(dir.get())) {
    const std::int64_t pid = pid_of(entry->d_name);
    if (pid == 0) {
      continue;
    }
    const std::string own = (proc / entry->d_name).string();
    const auto place = parse_process_cgroups(read_start(own + "/cgroup"));
    const auto netns = netns_of(own);
    if (!netns && place && !is_gone(netns.error(), own)) {
      processes.unseen.try_emplace(place->pod_uid, netns.error().message);
    }
    // Most of a node's own processes are passed by here.
    if (!netns || (!place && *netns == own_netns)) {
      continue;
    }
    PodProcess process{
        .pid = pid,
        .container_id = place ? place->container_id : "",
        .netns = *netns,
        .command_line = read_start(own + "/cmdline"),
        .started = place ? start_of(read_start(own + "/stat"), ticks, suspended) : std::nullopt};
    if (place) {
      processes.of_pods[place->pod_uid].push_back(std::move(process));
    } else if (!outside_sandbox_of(process.command_line).empty()) {
      processes.outside.push_back(std::move(process));
    }
  }
  return processes;
}

Result<RingHolders> netns_with_io_uring(const RingsWanted& wanted,
                                        const std::filesystem::path& proc) {
  const Dir dir(opendir(proc.c_str()));
  if (!dir) {
    return errno_error("list " + proc.string(), errno);
  }
  RingHolders holders;
  while (const dirent* entry = readdir(dir.get())) {
    if (pid_of(entry->d_name) != 0) {
      look_for_ring((proc / entry->d_name).string(), wanted, holders);
    }
  }
  for (const ino_t netns : holders.found) {
    holders.unseen.erase(netns);
  }
  return holders;
}

std::string sandbox_of(std::string_view command_line) {
  const std::string_view program = program_of(command_line);
  if (is_gvisor(program)) {
    return "gvisor";
  }
  // A pod may run a virtual machine for purposes of its own; Kata's have their sockets there.
  const bool is_katas = command_line.find("/run/vc/") != std::string_view::npos ||
                        command_line.find("/run/kata") != std::string_view::npos;
  return is_katas && is_machine_monitor(program) ? "kata" : "";
}

bool is_pause(std::string_view command_line) {
  using namespace std::string_view_literals;
  return command_line == "/pause\0"sv || command_line == "/usr/bin/pod\0"sv;  // that of OpenShift
}

std::chrono::nanoseconds suspended_since_boot() {
  const auto now = [](clockid_t clock) {
    timespec time{};
    clock_gettime(clock, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  };
  const auto running = now(CLOCK_MONOTONIC);
  return now(CLOCK_BOOTTIME) - running;
}

std::optional<std::chrono::steady_clock::time_point> start_of(std::string_view stat,
                                                              long ticks_per_second,
                                                              std::chrono::nanoseconds suspended) {
  constexpr int kFieldsBetween = 19;             // from the state, behind the name, to starttime
  const std::size_t name_end = stat.rfind(')');  // a name may have spaces and brackets
  std::string_view rest = stat.substr(name_end == std::string_view::npos ? stat.size() : name_end);
  for (int field = 0; field <= kFieldsBetween; ++field) {
    const std::size_t space = rest.find(' ');
    rest.remove_prefix(space == std::string_view::npos ? rest.size() : space + 1);
  }
  std::int64_t ticks = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
  if (error != std::errc() || ticks_per_second <= 0) {
    return std::nullopt;
  }
  return std::chrono::steady_clock::time_point(
      std::chrono::milliseconds(ticks * 1000 / ticks_per_second) - suspended);
}

std::string outside_sandbox_of(std::string_view command_line) {
  const std::string_view program = program_of(command_line);
  if (is_gvisor(program)) {
    return "gvisor";
  }
  // One of its runtimes has the virtual machine within its shim.
  return is_machine_monitor(program) || program.starts_with("containerd-shim-kata") ? "kata" : "";
}

}  // namespace sidetrack::pods
