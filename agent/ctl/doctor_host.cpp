// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "agent/ctl/doctor.h"
#include "agent/dataplane/dataplane.h"
#include "sidetrack/abi/types.h"

namespace sidetrack::ctl {
namespace {

std::string read_all(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

// Kernel options that nothing works without; only checked where the configuration is a plain file.
void check_config(const Host& host, Findings& findings) {
  const auto path = "/boot/config-" + host.kernel_release;
  const auto config = "\n" + read_all(host.root + path);
  if (config.size() == 1) {
    return;
  }
  for (const char* option :
       {"CONFIG_BPF_SYSCALL", "CONFIG_CGROUP_BPF", "CONFIG_INET", "CONFIG_NET_NS"}) {
    if (config.find(fmt::format("\n{}=y", option)) == std::string::npos) {
      findings.push_back({Severity::kError, "kernel",
                          fmt::format("{} is not set in {}", option, path),
                          "boot a kernel that has it"});
    }
  }
}

const Mount* find_cgroup2(const std::vector<Mount>& mounts) {
  for (const auto& mount : mounts) {
    if (mount.type == "cgroup2") {
      return &mount;
    }
  }
  return nullptr;
}

bool is_below(const std::string& path, const std::string& folder) {
  return path == folder || (path.starts_with(folder) && path[folder.size()] == '/');
}

void check_cgroup2(const Host& host, const std::vector<Mount>& mounts, Findings& findings) {
  const auto* mount = find_cgroup2(mounts);
  if (mount == nullptr) {
    findings.push_back({Severity::kError, "node",
                        "no cgroup2 is mounted: there is nothing to attach the programs to",
                        "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with "
                        "systemd.unified_cgroup_hierarchy=1"});
    return;
  }
  const auto id = dataplane::cgroup_id(host.root + mount->point);
  if (!id) {
    findings.push_back(
        {Severity::kWarning, "node", id.error().message, "run doctor as root on the node itself"});
  } else if (*id != ST_ROOT_CGROUP_ID) {
    findings.push_back(
        {Severity::kWarning, "node",
         fmt::format("{} is cgroup {}, not the root: this process sees a part of the tree only",
                     mount->point, *id),
         "run doctor on the node itself, or give the agent's container the host's cgroup "
         "namespace"});
  } else {
    findings.push_back(
        {Severity::kOk, "node", fmt::format("cgroup2 root at {} (id {})", mount->point, *id), ""});
  }
}

}  // namespace

std::vector<Mount> parse_mountinfo(const std::string& text) {
  std::vector<Mount> mounts;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Mount mount;
    std::string skipped;
    words >> skipped >> skipped >> skipped >> mount.root >> mount.point;
    while (words >> skipped && skipped != "-") {
    }
    if (words >> mount.type) {
      mounts.push_back(std::move(mount));
    }
  }
  return mounts;
}

std::string cgroup2_dir(const Host& host) {
  const auto mounts = parse_mountinfo(read_all(host.root + "/proc/self/mountinfo"));
  const auto* mount = find_cgroup2(mounts);
  return mount == nullptr ? "" : mount->point;
}

void check_kernel(const Host& host, Findings& findings) {
  unsigned major = 0;
  unsigned minor = 0;
  if (std::sscanf(host.kernel_release.c_str(), "%u.%u", &major, &minor) != 2) {
    findings.push_back({Severity::kWarning, "kernel",
                        "kernel release not understood: " + host.kernel_release, ""});
  } else if (major < 5 || (major == 5 && minor < 10)) {
    findings.push_back({Severity::kError, "kernel",
                        "kernel " + host.kernel_release + " is older than 5.10",
                        "boot 5.10 or newer"});
  } else {
    findings.push_back({Severity::kOk, "kernel", "kernel " + host.kernel_release, ""});
  }
  if (exists(host.root + "/sys/kernel/btf/vmlinux")) {
    findings.push_back({Severity::kOk, "kernel", "BTF is there", ""});
  } else {
    findings.push_back(
        {Severity::kError, "kernel",
         "/sys/kernel/btf/vmlinux is missing: the programs cannot be fitted to this kernel",
         "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (and mount sysfs)"});
  }
  check_config(host, findings);
}

void check_mounts(const Host& host, const std::string& pin_dir, Findings& findings) {
  const auto mounts = parse_mountinfo(read_all(host.root + "/proc/self/mountinfo"));
  check_cgroup2(host, mounts, findings);
  for (const auto& mount : mounts) {
    if (mount.type == "bpf" && is_below(pin_dir, mount.point)) {
      findings.push_back({Severity::kOk, "node", "bpffs at " + mount.point, ""});
      return;
    }
  }
  findings.push_back({Severity::kError, "node",
                      "no bpffs holds " + pin_dir + ": nothing can stay pinned there",
                      "mount -t bpf bpf /sys/fs/bpf"});
}

void check_sysctls(const Host& host, Findings& findings) {
  const auto sysctl = [&](const char* name) { return read_all(host.root + "/proc/sys/" + name); };
  if (sysctl("kernel/unprivileged_bpf_disabled").starts_with("0")) {
    findings.push_back({Severity::kWarning, "node",
                        "every process may load BPF programs (unprivileged_bpf_disabled is 0)",
                        "sysctl -w kernel.unprivileged_bpf_disabled=2"});
  }
  unsigned low = 0;
  unsigned high = 0;
  if (std::sscanf(sysctl("net/ipv4/ip_local_port_range").c_str(), "%u %u", &low, &high) == 2 &&
      high < low + 20000) {
    findings.push_back({Severity::kHint, "node",
                        fmt::format("only {} local ports ({}-{})", high - low + 1, low, high),
                        "pods with many connections may run out: set net.ipv4.ip_local_port_range "
                        "to 15000 60999 or wider "
                        "(a sysctl of each network namespace)"});
  }
  if (sysctl("net/ipv4/tcp_tw_reuse").starts_with("0")) {
    findings.push_back({Severity::kHint, "node",
                        "closed connections keep their local port for a minute (tcp_tw_reuse is 0)",
                        "net.ipv4.tcp_tw_reuse=1 lets new outgoing connections take them (a sysctl "
                        "of each network namespace)"});
  }
}

}  // namespace sidetrack::ctl
